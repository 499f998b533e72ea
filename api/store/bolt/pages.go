package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
)

// bbolt trusts its file: a damaged page makes it panic, read beyond the end of
// its memory map or, worst, take a page that is in use for a free one. Part of
// that happens in goroutines of its own, where nobody can recover. So the
// structure of the file is judged here first, from bytes, with every bound
// checked. The layout is that of go.etcd.io/bbolt/internal/common, version 2,
// in the byte order of the machine:
//
//	page    id 8 │ flags 2 │ count 2 │ overflow 4 │ elements
//	branch  pos 4 │ key size 4 │ page 8                      (pos from the element)
//	leaf    flags 4 │ pos 4 │ key size 4 │ value size 4
//	meta    magic 4 │ version 4 │ page size 4 │ flags 4 │ root 16 │ free list 8 │ pages 8 │ transaction 8 │ checksum 8
//	bucket  root page 8 (0: the page follows inline) │ sequence 8
const (
	pageHead    = 16
	element     = 16
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	flagBranch  = 0x01
	flagLeaf    = 0x02
	bucketLeaf  = 0x01
	deepestTree = 64
)

type pages struct {
	file  []byte
	size  uint64 // of a page
	count uint64 // pages in use or free
	seen  map[uint64]bool
}

// checkPages judges the whole tree of the file.
func checkPages(file []byte) error {
	p := pages{file: file, seen: map[uint64]bool{0: true, 1: true}}
	root, err := p.meta()
	if err != nil {
		return err
	}
	if have := uint64(len(file)) / p.size; have < p.count {
		return fmt.Errorf("it is cut off: %d of %d pages are left", have, p.count)
	}
	return p.page(root, 0)
}

// meta finds the newest valid head. It is at the first page or, if a write of
// that was cut off, at the second, whose place depends on the size of pages.
func (p *pages) meta() (root uint64, err error) {
	newest, found := uint64(0), false
	for at := uint64(0); at <= 1<<24; at = max(1024, at*2) {
		if at+pageHead+metaSize > uint64(len(p.file)) {
			break
		}
		m := p.file[at+pageHead:][:metaSize]
		sum := fnv.New64a()
		sum.Write(m[:56])
		order := binary.NativeEndian
		size, txid := uint64(order.Uint32(m[8:])), order.Uint64(m[48:])
		if order.Uint32(m) != metaMagic || order.Uint32(m[4:]) != metaVersion || order.Uint64(m[56:]) != sum.Sum64() ||
			size < 1024 || at != 0 && at != size || found && txid <= newest {
			continue
		}
		newest, found = txid, true
		root, p.size, p.count = order.Uint64(m[16:]), size, order.Uint64(m[40:])
	}
	if !found {
		return 0, fmt.Errorf("it is not a store, or its first pages are lost")
	}
	return root, nil
}

func (p *pages) page(id uint64, depth int) error {
	if id < 2 || id >= p.count || depth > deepestTree {
		return fmt.Errorf("there is no page %d", id)
	}
	b := p.file[id*p.size:]
	overflow := uint64(binary.NativeEndian.Uint32(b[12:]))
	if binary.NativeEndian.Uint64(b) != id || overflow >= p.count-id {
		return fmt.Errorf("page %d is something else", id)
	}
	for n := id; n <= id+overflow; n++ {
		if p.seen[n] {
			return fmt.Errorf("page %d is used twice", n)
		}
		p.seen[n] = true
	}
	if err := p.elements(b[:(overflow+1)*p.size], depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements judges a page, or a bucket that is inline in a value.
func (p *pages) elements(b []byte, depth int) error {
	if len(b) < pageHead {
		return fmt.Errorf("it is too short")
	}
	order := binary.NativeEndian
	flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:]))
	if flags != flagBranch && flags != flagLeaf || pageHead+count*element > len(b) || flags == flagBranch && count == 0 {
		return fmt.Errorf("it is neither a branch nor a leaf")
	}
	last := ""
	for i := range count {
		start := pageHead + i*element
		e := b[start:]
		pos, keySize, valueSize := order.Uint32(e), order.Uint32(e[4:]), uint32(0)
		if flags == flagLeaf {
			pos, keySize, valueSize = order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		}
		from := uint64(start) + uint64(pos)
		if from+uint64(keySize)+uint64(valueSize) > uint64(len(b)) {
			return fmt.Errorf("its element %d is beyond the end", i)
		}
		key, value := string(b[from:][:keySize]), b[from+uint64(keySize):][:valueSize]
		if i > 0 && key <= last {
			return fmt.Errorf("its keys are not in order")
		}
		last = key
		if err := p.below(e, flags, value, depth); err != nil {
			return err
		}
	}
	return nil
}

// below follows an element to the page or the bucket that it refers to.
func (p *pages) below(e []byte, flags uint16, value []byte, depth int) error {
	order := binary.NativeEndian
	switch {
	case flags == flagBranch:
		return p.page(order.Uint64(e[8:]), depth+1)
	case order.Uint32(e) == 0:
		return nil
	case order.Uint32(e) != bucketLeaf || len(value) < 16:
		return fmt.Errorf("it has an element of unknown kind")
	}
	if root := order.Uint64(value); root != 0 {
		return p.page(root, depth+1)
	}
	return p.elements(value[16:], depth+1)
}
