package rest

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// plainOrigin is a host or origin that means only itself.
var plainOrigin = regexp.MustCompile(`^([A-Za-z]+://)?[A-Za-z0-9.-]+(:[0-9]+)?$`)

// ParseOrigins reads which web pages may call the API from a browser: * for
// all; a host such as gui.example (any scheme, default port); an origin such as
// https://gui.example:8443; or a regular expression that matches a whole origin.
func ParseOrigins(allowed []string) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for _, text := range allowed {
		pattern := text
		switch {
		case text == "*":
			pattern = ".*"
		case plainOrigin.MatchString(text):
			pattern = regexp.QuoteMeta(text)
			if !strings.Contains(text, "://") {
				pattern = "https?://" + pattern
			}
		}
		re, err := regexp.Compile("^(?i:" + pattern + ")$")
		if err != nil {
			return nil, fmt.Errorf("%q is neither a host, nor an origin, nor a regular expression: %w", text, err)
		}
		out = append(out, re)
	}
	return out, nil
}

// cors tells browsers that the page may read the answer. done is true for the
// question that they ask before (a preflight), which is answered here: it shows
// no token.
func (s *server) cors(w http.ResponseWriter, r *http.Request) (done bool) {
	if len(s.Origins) == 0 {
		return false
	}
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !s.allowedOrigin(origin) {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", RevisionHeader+", "+PositionHeader)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE")
	w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (s *server) allowedOrigin(origin string) bool {
	for _, re := range s.Origins {
		if re.MatchString(origin) {
			return true
		}
	}
	return false
}
