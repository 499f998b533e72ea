package bolt

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// A record on disk:
//
//	checksum of the rest │ length of head │ head (JSON) │ spec as written
//	4 bytes, CRC-32C     │ uvarint        │             │ to the end
//
// The spec is beside the head because JSON inside JSON would be rewritten.
type head struct {
	Kind      string            `json:"kind"`
	Mesh      string            `json:"mesh,omitempty"`
	Zone      string            `json:"zone,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	Created   time.Time         `json:"created"`
	Modified  time.Time         `json:"modified"`
	Source    string            `json:"source,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Revision  store.Revision    `json:"revision"`
}

// key orders the records of a kind by ID. IDs have no zero bytes.
func key(id api.ID) []byte {
	return []byte(strings.Join([]string{id.Mesh, id.Zone, id.Namespace, id.Name}, "\x00"))
}

func encode(r *store.Record) ([]byte, error) {
	h, err := json.Marshal(head{
		r.Kind, r.Mesh, r.Zone, r.Namespace, r.Name, r.Labels, r.Created, r.Modified, r.Source, r.Owner, r.Revision,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", store.ErrInvalid, r.ID, err)
	}
	b := make([]byte, 4, 4+binary.MaxVarintLen64+len(h)+len(r.Spec))
	b = binary.AppendUvarint(b, uint64(len(h)))
	b = append(append(b, h...), r.Spec...)
	binary.BigEndian.PutUint32(b, checksum(b[4:]))
	return b, nil
}

var (
	errChecksum = errors.New("its checksum is wrong")
	errPlace    = errors.New("it is a record of another resource")
	errUnfound  = errors.New("it is not found by its key")
)

// decode copies all it keeps out of the value.
func decode(kind string, k, value []byte) (store.Record, error) {
	if len(value) < 5 || binary.BigEndian.Uint32(value) != checksum(value[4:]) {
		return store.Record{}, errChecksum
	}
	n, used := binary.Uvarint(value[4:])
	rest := value[4+max(used, 0):]
	if used <= 0 || n > uint64(len(rest)) {
		return store.Record{}, errChecksum
	}
	var h head
	if err := json.Unmarshal(rest[:n], &h); err != nil {
		return store.Record{}, err
	}
	r := store.Record{
		ID:     api.ID{Kind: h.Kind, Mesh: h.Mesh, Zone: h.Zone, Namespace: h.Namespace, Name: h.Name},
		Labels: h.Labels, Created: h.Created, Modified: h.Modified,
		Source: h.Source, Owner: h.Owner, Revision: h.Revision,
	}
	if spec := rest[n:]; len(spec) > 0 {
		r.Spec = append(json.RawMessage(nil), spec...)
	}
	if r.Kind != kind || string(key(r.ID)) != string(k) {
		return store.Record{}, errPlace
	}
	return r, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
