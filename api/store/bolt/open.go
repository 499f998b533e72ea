package bolt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/atoll-mesh/atoll/api/store"
)

const (
	// Format is the newest format of the file that this program reads.
	Format = 1
	// reader is what a program that is too old for the file is told to become.
	reader = "Atoll 0.1"
	// lockWait is how long Open waits for another process to let go of the file:
	// long enough for one that is just ending.
	lockWait = time.Second
)

var (
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("in use by another process")
	// ErrNewer: the file was written by a newer program.
	ErrNewer = errors.New("written by a newer version")
)

// Option changes how a file is opened.
type Option func(*options)

type options struct {
	limits   store.Limits
	newEpoch bool
}

// WithLimits bounds the recent past that followers read from memory.
func WithLimits(l store.Limits) Option { return func(o *options) { o.limits = l } }

// WithNewEpoch begins a new history with the state of the file. It is for a file
// that was restored from a backup, which cannot be told from the file itself:
// followers elsewhere then notice that revisions count anew.
func WithNewEpoch() Option { return func(o *options) { o.newEpoch = true } }

// Open opens the file, or creates it if there is nothing at the path. Before it
// returns, every record was read once and the file was written once, so that
// damage and a full disk are found now and not later.
//
// Errors: a [*store.Corrupt] for a file that is empty, cut off or damaged,
// [ErrLocked], [ErrNewer], or that of the file system. All name the path.
func Open(path string, opts ...Option) (*Store, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, fmt.Errorf("creating the store %s: %w", path, err)
		}
	case err != nil:
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("opening the store %s: it is not a file", path)
	case info.Size() == 0:
		return nil, &store.Corrupt{Path: path, What: "the file is empty"}
	}
	s := &Store{path: path, log: store.NewLog(o.limits), closed: make(chan struct{})}
	s.queue = store.NewQueue(s.commitGroup)
	if err := s.verify(); err != nil {
		return nil, err
	}
	if err := s.open(false); err != nil {
		return nil, err
	}
	if err := s.begin(o.newEpoch); err != nil {
		return nil, errors.Join(err, s.bolt.Close())
	}
	return s, nil
}

// create makes a complete file beside the path and puts it into place, unless
// another process was faster.
func create(path string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is linked at the path by then
	if err := f.Close(); err != nil {
		return err
	}
	b, err := bbolt.Open(f.Name(), 0o600, fileOptions())
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		info, err := tx.CreateBucket(bucketInfo)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(bucketRows); err != nil {
			return err
		}
		return errors.Join(
			info.Put(keyFormat, strconv.AppendInt(nil, Format, 10)),
			info.Put(keyReader, []byte(reader)),
			info.Put(keyEpoch, []byte(rand.Text())),
			putRevision(tx, 0),
			census{}.put(tx),
		)
	})
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without hard links.
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// verify reads the whole file without changing it, under a shared lock.
func (s *Store) verify() (err error) {
	if err := s.open(true); err != nil {
		return err
	}
	defer func() {
		if cerr := s.bolt.Close(); err == nil {
			err = cerr
		}
	}()
	// Up to here bbolt has looked at the first two pages only.
	content, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("opening the store %s: %w", s.path, err)
	}
	if err := checkPages(content); err != nil {
		return &store.Corrupt{Path: s.path, What: "its pages cannot be read", Err: err}
	}
	tx, err := s.bolt.Begin(false)
	if err != nil {
		return fmt.Errorf("reading the store %s: %w", s.path, err)
	}
	defer tx.Rollback() //nolint:errcheck // of a read: nothing to lose
	defer s.caught("a page", &err)
	if err := s.checkFormat(tx); err != nil {
		return err
	}
	records, err := s.records(tx)
	if err != nil {
		return err
	}
	// What is there must also be found: the way to it is not in its checksum.
	for i := range records {
		k := key(records[i].ID)
		if tx.Bucket(bucketRows).Bucket([]byte(records[i].Kind)).Get(k) == nil {
			return s.damaged(records[i].Kind, k, errUnfound)
		}
	}
	have := census{}
	for i := range records {
		have.add(&records[i])
	}
	if want := readCensus(tx); have != want {
		return &store.Corrupt{Path: s.path, What: fmt.Sprintf("it should have %d records and has %d, or others", want.records, have.records)}
	}
	return nil
}

func (s *Store) checkFormat(tx *bbolt.Tx) error {
	info := tx.Bucket(bucketInfo)
	if info == nil {
		return &store.Corrupt{Path: s.path, What: "it is a bbolt file, but not a store"}
	}
	format, err := strconv.Atoi(string(info.Get(keyFormat)))
	switch {
	case err != nil || format < 1:
		return &store.Corrupt{Path: s.path, What: "its format number cannot be read", Err: err}
	case format > Format:
		return fmt.Errorf("opening the store %s: %w: it has format %d, this program reads up to %d; %s reads it",
			s.path, ErrNewer, format, Format, info.Get(keyReader))
	case tx.Bucket(bucketRows) == nil || len(info.Get(keyRevision)) != 8 || len(info.Get(keyEpoch)) == 0 || len(info.Get(keyCensus)) != 16:
		return &store.Corrupt{Path: s.path, What: "its head is incomplete"}
	}
	return nil
}

// open opens the file with bbolt and takes its lock. What bbolt panics about
// becomes an error.
func (s *Store) open(readOnly bool) (err error) {
	var file *os.File
	defer func() {
		if s.bolt == nil && file != nil {
			unlock(file)
		}
	}()
	defer s.caught("a page", &err)
	s.bolt = nil
	o := fileOptions()
	o.Timeout, o.ReadOnly = lockWait, readOnly
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err = os.OpenFile(name, flag&^os.O_CREATE, mode) // what is missing was made by create
		return file, err
	}
	s.bolt, err = bbolt.Open(s.path, 0o600, o)
	var path *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("opening the store %s: %w; end that process, or use another data directory", s.path, ErrLocked)
	case errors.As(err, &path), errors.As(err, &errno):
		return fmt.Errorf("opening the store %s: %w", s.path, err)
	}
	return &store.Corrupt{Path: s.path, What: "it is not a store, or its first pages are lost", Err: err}
}

// fileOptions are those of every writer of the file. The list of free pages is
// not kept in it but found at the start: that is less to write at each commit,
// and no damage of the list can make a page that is in use look free.
func fileOptions() *bbolt.Options {
	return &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// begin writes to the file once, which shows that it can be written.
func (s *Store) begin(newEpoch bool) error {
	err := s.bolt.Update(func(tx *bbolt.Tx) error {
		info := tx.Bucket(bucketInfo)
		s.epoch = string(info.Get(keyEpoch))
		if newEpoch {
			s.epoch = rand.Text()
		}
		return info.Put(keyEpoch, []byte(s.epoch))
	})
	if err != nil {
		return fmt.Errorf("the store %s cannot be written: %w; make room on the disk, or make it writable", s.path, err)
	}
	return nil
}
