package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	demoDirs = "atoll-demo-*"
	demoLock = "lock"
	// demoYoung is the age below which a directory may be about to be locked.
	demoYoung = time.Minute
)

// newDemoDir makes the directory of a demonstration, locked as long as the file
// is open, and removes those of demonstrations that were killed.
func newDemoDir() (string, *os.File, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), demoDirs))
	if err != nil {
		return "", nil, err
	}
	for _, dir := range old {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < demoYoung {
			continue
		}
		if lock, err := lockDemoDir(dir, os.O_RDWR); err == nil {
			_ = os.RemoveAll(dir) // what stays is tried again next time
			_ = lock.Close()
		}
	}
	dir, err := os.MkdirTemp("", demoDirs)
	if err != nil {
		return "", nil, fmt.Errorf("temporary directory: %w", err)
	}
	lock, err := lockDemoDir(dir, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("temporary directory: %w", err), os.RemoveAll(dir))
	}
	return dir, lock, nil
}

func lockDemoDir(dir string, mode int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, demoLock), mode, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
