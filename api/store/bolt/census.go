package bolt

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// census says which records the file should have: how many, and the sum of the
// hashes of ID and revision. A checksum in a record cannot tell that the record
// is lost; this can, and it costs a commit only what the commit changes.
type census struct{ records, sum uint64 }

func (c *census) add(r *store.Record)    { c.records, c.sum = c.records+1, c.sum+hash(r) }
func (c *census) remove(r *store.Record) { c.records, c.sum = c.records-1, c.sum-hash(r) }

// replace counts a commit; old are the records that its operations met, which
// stay if an operation said nothing new.
func (c *census) replace(b *store.Batch, old []store.Record) {
	met := make(map[api.ID]*store.Record, len(old))
	for i := range old {
		met[old[i].ID] = &old[i]
	}
	gone := func(id api.ID) {
		if r, ok := met[id]; ok {
			c.remove(r)
		}
	}
	for i := range b.Puts {
		gone(b.Puts[i].ID)
		c.add(&b.Puts[i])
	}
	for _, id := range b.Deletes {
		gone(id)
	}
}

func hash(r *store.Record) uint64 {
	b := append([]byte(r.Kind+"\x00"), key(r.ID)...)
	return xxhash.Sum64(binary.BigEndian.AppendUint64(b, uint64(r.Revision)))
}

func readCensus(tx *bbolt.Tx) census {
	v := tx.Bucket(bucketInfo).Get(keyCensus)
	return census{binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])}
}

func (c census) put(tx *bbolt.Tx) error {
	v := binary.BigEndian.AppendUint64(nil, c.records)
	return tx.Bucket(bucketInfo).Put(keyCensus, binary.BigEndian.AppendUint64(v, c.sum))
}
