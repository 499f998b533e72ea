package server

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Setting is one thing that can be configured.
type Setting struct {
	// Path is where it stands in the file: apiServer.address. Variable is the
	// environment variable that overrides it.
	Path, Variable string
	// Default is its value in the configuration that was asked, as JSON.
	Default string
	// Field is the Go field, Type.Field: its comment is the description.
	Field string
}

// Settings lists what a configuration holds, a pointer to a struct, in the order
// of its fields.
func Settings(config any) []Setting {
	return settings(reflect.ValueOf(config).Elem(), "", "ATOLL")
}

func settings(v reflect.Value, path, variable string) []Setting {
	var out []Setting
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		f := v.Field(i)
		switch {
		case sf.Anonymous:
			out = append(out, settings(f, path, variable)...)
		case f.Kind() == reflect.Struct:
			out = append(out, settings(f, path+name+".", variable+"_"+upperSnake(name))...)
		default:
			value, _ := json.Marshal(f.Interface()) // settings are plain values
			out = append(out, Setting{
				Path: path + name, Variable: variable + "_" + upperSnake(name),
				Default: string(value), Field: v.Type().Name() + "." + sf.Name,
			})
		}
	}
	return out
}
