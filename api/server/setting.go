package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Setting is one thing that can be configured.
type Setting struct {
	// Path is where it stands in the file: apiServer.address. Variable is the
	// environment variable that overrides it.
	Path, Variable string
	// Field is the Go field, Type.Field: its comment is the description.
	Field string
	value reflect.Value // of the configuration that was asked
}

// Value is what the configuration that was asked holds, as JSON.
func (s Setting) Value() string {
	text, _ := json.Marshal(s.value.Interface()) // settings are plain values
	return string(text)
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
			out = append(out, Setting{
				Path: path + name, Variable: variable + "_" + upperSnake(name), Field: v.Type().Name() + "." + sf.Name, value: f,
			})
		}
	}
	return out
}

// upperSnake turns localhostIsAdmin into LOCALHOST_IS_ADMIN, and internalCIDRs
// into INTERNAL_CIDRS.
func upperSnake(name string) string {
	var b strings.Builder
	capital := true
	for _, r := range name {
		if unicode.IsUpper(r) && !capital {
			b.WriteByte('_')
		}
		capital = unicode.IsUpper(r)
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// fits says what keeps a value of the file from being this setting. What YAML
// takes for a number or a truth is a text where a text is wanted.
func (s Setting) fits(value any) error {
	list, isList := value.([]any)
	_, isSection := value.(map[string]any)
	switch t := s.value.Type(); {
	case t.Kind() == reflect.String && !isList && !isSection:
		return nil
	case isList && t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		for _, v := range list {
			if one := (Setting{value: reflect.Zero(t.Elem())}).fits(v); one != nil {
				return one
			}
		}
		return nil
	}
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(reflect.New(s.value.Type()).Interface())
	if other, ok := err.(*json.UnmarshalTypeError); ok && other.Field == "" { // not one that a setting explains
		return fmt.Errorf("%s is %s", body, notA(s.value.Kind()))
	}
	return err
}

// notA says that a value is not of the kind.
func notA(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "neither true nor false"
	case reflect.Int, reflect.Int64:
		return "no integer"
	case reflect.Slice:
		return "no list"
	}
	return "no text"
}

// set gives a setting the value of a text.
func set(f reflect.Value, value string) error {
	switch f.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(value)
		f.SetInt(int64(d))
		return err
	case Duration:
		d, err := time.ParseDuration(value)
		f.SetInt(int64(d))
		return err
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(value)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is %s", value, notA(f.Kind()))
		}
		f.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is %s", value, notA(f.Kind()))
		}
		f.SetInt(n)
	case reflect.Slice:
		if f.Type().Elem().Kind() != reflect.String {
			return fmt.Errorf("can be set in the file only")
		}
		var list []string
		if value != "" {
			list = strings.Split(value, ",")
		}
		f.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("can be set in the file only")
	}
	return nil
}
