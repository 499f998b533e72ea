//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package bolt

import (
	"os"
	"syscall"
)

// unlock lets go of a file that bbolt could neither open nor close: its memory
// map outlives the descriptor and would keep the lock until the process ends.
func unlock(f *os.File) {
	syscall.Flock(int(f.Fd()), syscall.LOCK_UN) //nolint:errcheck // nothing better can be done
	f.Close()                                   //nolint:errcheck // likewise
}
