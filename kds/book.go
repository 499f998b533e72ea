package kds

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// book keeps the ZoneInsight of one zone: its connections and what was said on
// them. Rows of it are written when a connection opens or closes, and else when
// asked to (see flush), so that counting messages costs no commits.
type book struct {
	o     Options
	site  api.Site
	zone  string
	limit int

	mu      sync.Mutex
	subs    []api.ZoneSubscription
	streams api.KDSStreams
	pinged  time.Time
	said    []Rejection // in the last row
	changed bool
}

func newBook(o Options, site api.Site, zone string, limit int) *book {
	return &book{o: o, site: site, zone: zone, limit: limit}
}

// open enters a connection and returns its ID.
func (b *book) open(token bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now().UTC()
	for i := range b.subs {
		if b.subs[i].DisconnectTime == nil {
			b.subs[i].DisconnectTime = &now
		}
	}
	sub := api.ZoneSubscription{ID: uuid.NewString(), GlobalInstanceID: b.o.Instance, ConnectTime: &now, AuthTokenProvided: token}
	b.subs = append(b.subs, sub)
	b.subs = b.subs[max(0, len(b.subs)-b.limit):]
	b.changed = true
	return sub.ID
}

func (b *book) with(id string, f func(*api.ZoneSubscription)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.subs {
		if b.subs[i].ID == id {
			f(&b.subs[i])
			b.changed = true
		}
	}
}

// greet notes what the peer said of itself.
func (b *book) greet(id string, n *node) {
	b.with(id, func(s *api.ZoneSubscription) {
		s.ZoneInstanceID, s.Config = n.instance, n.config
		if !b.site.IsGlobal() {
			s.GlobalInstanceID, s.ZoneInstanceID = n.instance, b.o.Instance
		}
		s.Version = &api.ZoneVersion{KumaCP: &api.KumaCPVersion{Version: n.version, KumaCPGlobalCompatible: true}}
	})
}

// count adds to the counters of a connection.
func (b *book) count(id, kind string, sent, ack, nack uint64) {
	b.with(id, func(s *api.ZoneSubscription) {
		now := time.Now().UTC()
		s.Status.LastUpdateTime = &now
		if s.Status.Stat == nil {
			s.Status.Stat = map[string]api.DiscoveryStats{}
		}
		add := func(d *api.DiscoveryStats) {
			d.ResponsesSent += api.Uint64(sent)
			d.ResponsesAcknowledged += api.Uint64(ack)
			d.ResponsesRejected += api.Uint64(nack)
		}
		one := s.Status.Stat[kind]
		add(&one)
		s.Status.Stat[kind] = one
		add(&s.Status.Total)
	})
}

func (b *book) close(id string) {
	b.with(id, func(s *api.ZoneSubscription) {
		now := time.Now().UTC()
		s.DisconnectTime = &now
	})
}

// stream notes that a stream was opened here.
func (b *book) stream(which func(*api.KDSStreams) **api.KDSStream) {
	now := time.Now().UTC()
	b.mu.Lock()
	defer b.mu.Unlock()
	*which(&b.streams) = &api.KDSStream{GlobalInstanceID: b.o.Instance, ConnectTime: &now}
	b.changed = true
}

func (b *book) ping() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pinged, b.changed = time.Now().UTC(), true
}

func (b *book) lastPing() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pinged
}

// flush writes the row if there is anything new in it.
func (b *book) flush(st Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	refused := slices.Concat(st.Rejected, st.Refused)
	if !b.changed && slices.Equal(refused, b.said) {
		return
	}
	b.changed, b.said = false, refused
	spec := api.ZoneInsight{Subscriptions: slices.Clone(b.subs)}
	for i := range spec.Subscriptions { // rows never change
		spec.Subscriptions[i].Status.Stat = maps.Clone(spec.Subscriptions[i].Status.Stat)
	}
	if streams := b.streams; streams != (api.KDSStreams{}) {
		spec.KDSStreams = &streams
	}
	if !b.pinged.IsZero() {
		at := b.pinged
		spec.HealthCheck = &api.ZoneHealthCheck{Time: &at}
	}
	for _, r := range refused {
		spec.Rejected = append(spec.Rejected, api.RejectedResource{Type: r.Kind, Name: r.Name, Reason: r.Reason})
	}
	for _, h := range st.Held {
		spec.Conditions = append(spec.Conditions, api.Condition{Type: "RemovalHeld", Status: "True", Reason: h.Kind, Message: heldText(h.Kind, h.Rows, h.Of)})
	}
	if st.Restored {
		spec.Conditions = append(spec.Conditions, api.Condition{Type: "Restored", Status: "True", Reason: "OtherHistory", Message: "the peer came back with another history than the one known here"})
	}
	id := api.LocalID(api.ZoneInsights, "", "", b.zone, b.site)
	now := time.Now().UTC()
	row := api.ZoneInsights.New(api.Meta{ID: id, Core: b.zone, Instance: b.o.Instance, Created: now, Modified: now}, spec)
	_, err := b.o.DB.Write(func(tx *db.Tx) error {
		if old, ok := api.ZoneInsights.Get(tx, id); ok {
			row.Created = old.Created
		}
		api.ZoneInsights.PutObject(tx, row)
		return nil
	})
	if err != nil { // only the function above could fail
		panic("kds: " + err.Error())
	}
}
