package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Duration is a length of time written as Go writes it: "10s", "1h30m".
type Duration struct{ time.Duration }

// MarshalJSON writes "1m0s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.Duration.String()) }

// UnmarshalJSON reads "1m".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("must be a duration such as \"10s\" or \"1h30m\"")
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("invalid duration %q: write it as \"10s\" or \"1h30m\"", text)
	}
	d.Duration = v
	return nil
}

// ProtoDuration is a length of time as protobuf JSON writes it: decimal seconds
// with an s, "10s", "0.250s".
type ProtoDuration struct{ time.Duration }

// MarshalJSON writes "0.250s".
func (d ProtoDuration) MarshalJSON() ([]byte, error) {
	sign, v := "", uint64(d.Duration)
	if d.Duration < 0 {
		sign, v = "-", -v // of the longest one, too, which no Duration can negate
	}
	text := sign + strconv.FormatUint(v/uint64(time.Second), 10)
	switch ns := time.Duration(v % uint64(time.Second)); {
	case ns == 0:
	case ns%time.Millisecond == 0:
		text += fmt.Sprintf(".%03d", ns/time.Millisecond)
	case ns%time.Microsecond == 0:
		text += fmt.Sprintf(".%06d", ns/time.Microsecond)
	default:
		text += fmt.Sprintf(".%09d", ns)
	}
	return json.Marshal(text + "s")
}

// UnmarshalJSON reads "0.25s".
func (d *ProtoDuration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("must be a duration in seconds such as \"10s\" or \"0.250s\"")
	}
	for i := range len(text) {
		c, last := text[i], i == len(text)-1
		if last && c == 's' || !last && (c >= '0' && c <= '9' || c == '.' || i == 0 && c == '-') {
			continue
		}
		return fmt.Errorf("invalid duration %q: write it in seconds, such as \"10s\" or \"0.250s\"", text)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("invalid duration %q: write it in seconds, such as \"10s\" or \"0.250s\"", text)
	}
	d.Duration = v
	return nil
}

// IntOrString is a value that may be written as an integer or as text: a port
// by number or by name, a percentage.
type IntOrString struct {
	// Str is set when it was written as text.
	Str string
	Int int32
	// Text says that it was written as text.
	Text bool
}

// IntOrStringOf is an integer.
func IntOrStringOf(n int) IntOrString { return IntOrString{Int: int32(n)} }

// MarshalJSON writes what was read.
func (v IntOrString) MarshalJSON() ([]byte, error) {
	if v.Text {
		return json.Marshal(v.Str)
	}
	return json.Marshal(v.Int)
}

// UnmarshalJSON reads 80 or "http".
func (v *IntOrString) UnmarshalJSON(b []byte) error {
	*v = IntOrString{}
	if len(b) > 0 && b[0] == '"' {
		v.Text = true
		return json.Unmarshal(b, &v.Str)
	}
	if json.Unmarshal(b, &v.Int) != nil {
		return fmt.Errorf("must be an integer or a string")
	}
	return nil
}

func (v IntOrString) String() string {
	if v.Text {
		return v.Str
	}
	return strconv.Itoa(int(v.Int))
}

// Decimal is the value as a number; 0 for text that is none, which validation
// refuses where a number is meant.
func (v IntOrString) Decimal() float64 {
	n, _ := v.number()
	return n
}

func (v IntOrString) number() (n float64, ok bool) {
	if !v.Text {
		return float64(v.Int), true
	}
	n, err := strconv.ParseFloat(v.Str, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, false
	}
	return n, true
}

// Uint64 is a count that JSON carries as a string, because JSON numbers lose
// precision beyond 2^53 (protobuf JSON mapping). Both forms are read.
type Uint64 uint64

// MarshalJSON writes "5".
func (v Uint64) MarshalJSON() ([]byte, error) {
	return json.Marshal(strconv.FormatUint(uint64(v), 10))
}

// UnmarshalJSON reads "5" or 5.
func (v *Uint64) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("must be a whole number of at most 64 bits, not negative")
	}
	*v = Uint64(n)
	return nil
}
