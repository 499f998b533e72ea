package delta

import (
	"slices"
	"strings"
)

// unsent is what is due to be sent, sorted by name, so that a message is cut from its front.
type unsent struct {
	due []due
	n   int // those that are not taken
}

// due is one name that is to be sent.
type due struct {
	name  string
	item  Item // nil: tell that it does not exist
	taken bool // it was sent out of turn, or is due no more
}

// find returns what is due under a name, or nil.
func (u *unsent) find(name string) *due {
	if i, ok := search(u.due, name); ok && !u.due[i].taken {
		return &u.due[i]
	}
	return nil
}

func search(in []due, name string) (int, bool) {
	if len(in) == 0 {
		return 0, false
	}
	return slices.BinarySearchFunc(in, name, func(d due, name string) int { return strings.Compare(d.name, name) })
}

// take removes what find returned.
func (u *unsent) take(d *due) {
	d.taken = true
	u.n--
}

func (u *unsent) drop(name string) {
	if d := u.find(name); d != nil {
		u.take(d)
	}
}

// front cuts off what is taken, and returns what is due first.
func (u *unsent) front() *due {
	for u.due[0].taken {
		u.due = u.due[1:]
	}
	return &u.due[0]
}

// fit counts how many fit in as many bytes, from the front; the first one does if it must.
func (u *unsent) fit(room int, must bool) (n int) {
	for i := range u.due {
		d := &u.due[i]
		if d.taken {
			continue
		}
		size := d.size()
		if size > room && !must {
			break
		}
		room, must = max(0, room-size), false
		n++
	}
	return n
}

func (d *due) size() int {
	if d.item == nil {
		return len(d.name)
	}
	return d.item.Size()
}

// merge asks about every one of the sorted names, in order, and makes it due or not; the others stay as they are.
func (u *unsent) merge(names []string, ask func(name string, pending bool) (Item, bool)) {
	was := u.due
	var now []due
	n := u.n
	for i, name := range names {
		at, found := search(was, name)
		if at > 0 {
			now = append(now, was[:at]...)
			was = was[at:]
		}
		pending := found && !was[0].taken
		if found {
			was = was[1:]
		}
		if pending {
			n--
		}
		if item, yes := ask(name, pending); yes {
			if now == nil {
				now = make([]due, 0, len(names)-i+len(was))
			}
			now = append(now, due{name: name, item: item})
			n++
		}
	}
	u.due, u.n = append(now, was...), n
}
