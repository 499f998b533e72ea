package zone

import (
	"os"
	"runtime/debug"
)

// garbage is how much memory may wait to be collected, in percent of what is in
// use (GOGC). Most of a zone's memory is what it keeps for each proxy; that lives
// long and changes little, so collecting earlier than at Go's 100 makes the
// process smaller; it costs time only where much changes.
const garbage = 60

// Process sets what concerns the whole process of a zone; a program that runs
// nothing but a zone calls it before [Run]. The environment's GOGC wins.
func Process() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}
