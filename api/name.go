package api

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
)

// KRI renders the Kuma resource identifier of an ID of this kind:
//
//	kri_<short>_<mesh>_<zone>_<namespace>_<name>_<section>
//
// Empty parts are kept. It is empty for kinds without a short name.
func (i Facts) KRI(id ID, section string) string {
	if i.Short == "" {
		return ""
	}
	return "kri_" + i.Short + "_" + id.Mesh + "_" + id.Zone + "_" + id.Namespace + "_" + id.Name + "_" + section
}

// ParseKRI is the inverse of KRI. Parts beyond the seventh belong to the section,
// which keeps its underscores (rule_0); upstream drops them.
func ParseKRI(s string) (id ID, section string, err error) {
	parts := strings.Split(s, "_")
	if len(parts) < 7 || parts[0] != "kri" {
		return ID{}, "", fmt.Errorf("%q is not a KRI: want kri_<short>_<mesh>_<zone>_<namespace>_<name>_<section>", s)
	}
	k, ok := ByShort(parts[1])
	if !ok {
		return ID{}, "", fmt.Errorf("unknown short name of resource type: %q", parts[1])
	}
	id = ID{Kind: k.Info().Name, Mesh: parts[2], Zone: parts[3], Namespace: parts[4], Name: parts[5]}
	return id, strings.Join(parts[6:], "_"), nil
}

const hashAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// SyncName is the name of an ID between control planes: the display name cut
// to 236 bytes, and 16 characters that stand for mesh, name, zone and namespace
// (contract: KDS renaming). It is the plain name for unhashed kinds.
func SyncName(k AnyKind, id ID) string {
	if k.Info().Unhashed {
		return id.Name
	}
	h := fnv.New64a()
	h.Write([]byte(id.Mesh + id.Name + id.Zone + id.Namespace))
	digits := fmt.Sprintf("%016x", h.Sum64())
	suffix := make([]byte, len(digits))
	for i := range len(digits) {
		suffix[i] = hashAlphabet[int(digits[i])%len(hashAlphabet)]
	}
	return id.Name[:min(len(id.Name), 236)] + "-" + string(suffix)
}

// SNI is the server name by which a port of a service is called between
// proxies. ok is false when a segment is no DNS label (63) or the whole is
// longer than 253: such a port cannot be reached over mTLS.
func SNI(k AnyKind, id ID, section string) (sni string, ok bool) {
	parts := []string{"sni", k.Info().Short, id.Mesh}
	if id.Zone != "" {
		parts = append(parts, id.Zone)
		if id.Namespace != "" {
			parts = append(parts, id.Namespace)
		}
	}
	parts = append(parts, id.Name, section)
	ok = true
	for _, p := range parts {
		ok = ok && len(p) <= 63 && dnsLabel.MatchString(p)
	}
	sni = strings.Join(parts, ".")
	return sni, ok && len(sni) <= 253
}

var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	dnsStart     = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	meshChars    = regexp.MustCompile(`^[0-9a-z\-_.]*$`)
	labelChars   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
)

// CheckDNSLabel returns why s is no RFC 1035 label, or "".
func CheckDNSLabel(s string) string {
	switch {
	case s == "":
		return "cannot be empty"
	case len(s) > 63:
		return "must be no more than 63 characters"
	case !dnsStart.MatchString(s):
		return "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123')"
	}
	return ""
}

// CheckName returns why s cannot be the name of a resource, or "".
func CheckName(s string) string {
	switch {
	case s == "":
		return "cannot be empty"
	case len(s) > 253:
		return "value length must less or equal 253"
	case !dnsSubdomain.MatchString(s):
		return "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
	}
	return ""
}

// CheckMeshName returns why s cannot be the mesh of a resource, or "".
func CheckMeshName(s string) string {
	switch {
	case s == "":
		return "cannot be empty"
	case len(s) > 253:
		return "value length must less or equal 253"
	case !meshChars.MatchString(s):
		return "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols."
	}
	return ""
}
