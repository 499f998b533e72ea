package envoy

import "strings"

// Operators are all that [CheckFormat] knows, as a format may have them.
func Operators() (all []string) {
	for _, name := range strings.Fields(plainOperators + " " + freeOperators) {
		all = append(all, "%"+name+"%")
	}
	for _, name := range strings.Fields(askingOperators) {
		with := "a:b"
		switch name {
		case "CEL":
			with = "request.path"
		case "COALESCE":
			with = `{"operators": ["HOSTNAME"]}`
		case "COMMON_DURATION":
			with = "DS_RX_BEG:DS_TX_END:ms"
		case "FILTER_STATE", "UPSTREAM_FILTER_STATE":
			with = "a:PLAIN"
		case "METADATA":
			with = "ROUTE:a:b"
		case "REQ", "RESP", "TRAILER", "REQUEST_HEADER", "RESPONSE_HEADER", "RESPONSE_TRAILER", "STREAM_INFO_REQ":
			with = "X-A?:PATH"
		}
		all = append(all, "%"+name+"("+with+")%")
	}
	return all
}
