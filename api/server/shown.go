package server

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
)

// masked stands for a secret in what is shown of a configuration.
const masked = "*****"

// secretKey finds the keys of a configuration whose value is a secret; those of
// the files that hold one are not.
var secretKey = regexp.MustCompile(`(?i)(password|secret|token|privateKey|credential|dsn)s?$`)

// userInfo finds the user and the password in a text like an address.
var userInfo = regexp.MustCompile(`://.*@`)

// shown is the configuration as GET /config answers it, with secrets masked: the
// texts under telling keys, and passwords in addresses.
func shown(config any) (any, error) {
	body, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	var tree any
	if err := json.Unmarshal(body, &tree); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return maskIn("", tree), nil
}

func maskIn(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = maskIn(name, v[name])
		}
	case []any:
		for i := range v {
			v[i] = maskIn(key, v[i])
		}
	case string:
		if v != "" && secretKey.MatchString(key) {
			return masked
		}
		u, err := url.Parse(v)
		if err != nil {
			// No address, or one with a fault: who may read it is not who may know
			// what stands before its @.
			return userInfo.ReplaceAllString(v, "://"+masked+"@")
		}
		if u.User != nil {
			if _, has := u.User.Password(); has {
				u.User = url.User(u.User.Username())
				return fmt.Sprintf("%s (password %s)", u, masked)
			}
		}
	}
	return v
}
