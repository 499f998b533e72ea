package store

import (
	"errors"
	"fmt"

	"github.com/atoll-mesh/atoll/api"
)

var (
	// ErrConflict: the record is not as the writer expected; see [Conflict].
	ErrConflict = errors.New("the resource was changed in the meantime")
	// ErrNotFound: a deletion expected a record that is not there.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: no store can take these operations.
	ErrInvalid = errors.New("not storable")
	// ErrUnavailable: what holds the records cannot be reached, or takes no writes
	// now. It may be different a moment later.
	ErrUnavailable = errors.New("the store is not available")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Conflict says which record was not as expected. It is an [ErrConflict].
type Conflict struct {
	ID api.ID
	// Expected is what the writer believed.
	Expected Expect
	// Found is the revision of the record, 0 if there is none.
	Found Revision
}

func (c *Conflict) Error() string {
	found := "it does not exist"
	if c.Found != 0 {
		found = fmt.Sprintf("it is at revision %d", c.Found)
	}
	return fmt.Sprintf("%v: %s: expected %s, but %s", ErrConflict, c.ID, c.Expected, found)
}

// Is makes errors.Is(err, ErrConflict) hold.
func (c *Conflict) Is(target error) bool { return target == ErrConflict }

func (e Expect) String() string {
	switch e {
	case Any:
		return "nothing"
	case Absent:
		return "that it does not exist"
	}
	return fmt.Sprintf("revision %d", e-exact)
}

// Corrupt says that what is stored cannot be read, where, and what to do.
type Corrupt struct {
	// Path is the file, or another name of the place.
	Path string
	// What is damaged, as far as it can be told.
	What string
	// Err is what reading it said; may be nil.
	Err error
}

func (c *Corrupt) Error() string {
	s := fmt.Sprintf("store %s is damaged: %s", c.Path, c.What)
	if c.Err != nil {
		s += ": " + c.Err.Error()
	}
	return s + "; restore it from a backup, or move it away to start empty"
}

func (c *Corrupt) Unwrap() error { return c.Err }
