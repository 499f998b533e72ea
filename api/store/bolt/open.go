package bolt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

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
	s.idle = sync.NewCond(&s.mu)
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
	b, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
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

// verify reads the whole file without changing it. A page that is cut off is
// met as a memory fault, a page of something else as a panic of bbolt.
func (s *Store) verify() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := s.open(true); err != nil {
		return err
	}
	defer func() {
		if cerr := s.bolt.Close(); err == nil {
			err = cerr
		}
	}()
	file, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("opening the store %s: %w", s.path, err)
	}
	tx, err := s.bolt.Begin(false)
	if err != nil {
		return fmt.Errorf("reading the store %s: %w", s.path, err)
	}
	defer tx.Rollback() //nolint:errcheck // of a read: nothing to lose
	defer s.caught("a page", &err)
	if tx.Size() > file.Size() {
		return &store.Corrupt{Path: s.path, What: fmt.Sprintf("it is cut off: %d of %d bytes are left", file.Size(), tx.Size())}
	}
	if err := s.checkFormat(tx); err != nil {
		return err
	}
	_, err = s.records(tx)
	return err
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
	case tx.Bucket(bucketRows) == nil || len(info.Get(keyRevision)) != 8 || len(info.Get(keyEpoch)) == 0:
		return &store.Corrupt{Path: s.path, What: "its head is incomplete"}
	}
	return nil
}

// open opens the file with bbolt. bbolt panics on some damage, and would then
// keep the lock.
func (s *Store) open(readOnly bool) (err error) {
	var file *os.File
	defer func() {
		if err != nil && file != nil {
			file.Close() //nolint:errcheck // bbolt may have closed it
		}
	}()
	defer s.caught("the list of free pages", &err)
	s.bolt, err = bbolt.Open(s.path, 0o600, &bbolt.Options{
		Timeout: lockWait, ReadOnly: readOnly, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			// Never os.O_CREATE: what is not there was made by create.
			file, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
			return file, err
		},
	})
	var path *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bbolt.ErrTimeout):
		return fmt.Errorf("opening the store %s: %w; end that process, or use another data directory", s.path, ErrLocked)
	case errors.As(err, &path), errors.As(err, &errno):
		return fmt.Errorf("opening the store %s: %w", s.path, err)
	}
	return &store.Corrupt{Path: s.path, What: "it is not a store, or its first pages are lost", Err: err}
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
