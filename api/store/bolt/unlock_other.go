//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package bolt

import "os"

// unlock leaves the lock to the end of the process.
func unlock(f *os.File) {
	f.Close() //nolint:errcheck // nothing better can be done
}
