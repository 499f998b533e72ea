package status

import (
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// subscriptionLimit is how many streams of a proxy are remembered.
const subscriptionLimit = 2

// subscription is a stream as the insight of its proxy shows it.
func (f *Feeder) subscription(s xds.Status) api.DataplaneSubscription {
	now := f.o.Now().UTC()
	connected := s.Connected.UTC()
	sub := api.DataplaneSubscription{
		ID: fmt.Sprintf("%s/%d", f.o.Instance, s.Stream), ControlPlaneInstanceID: f.o.Instance, ConnectTime: &connected,
		Version: versionOf(s.Node),
	}
	if s.Closed {
		sub.DisconnectTime = &now
	}
	st := &sub.Status
	st.LastUpdateTime = &now
	into := map[wire.Type]*api.DiscoveryStats{wire.Cluster: &st.CDS, wire.Endpoints: &st.EDS, wire.Listener: &st.LDS, wire.Route: &st.RDS}
	for t, c := range s.Stats {
		for _, d := range []*api.DiscoveryStats{&st.Total, into[t]} {
			if d == nil {
				continue
			}
			d.ResponsesSent += api.Uint64(c.Sent)
			d.ResponsesAcknowledged += api.Uint64(c.Acked)
			d.ResponsesRejected += api.Uint64(c.Rejected)
		}
	}
	return sub
}

// subscribed enters a stream among those of its proxy, of which the newest is
// the last: one that is open ends those before it.
func subscribed(list []api.DataplaneSubscription, sub api.DataplaneSubscription) []api.DataplaneSubscription {
	if i := slices.IndexFunc(list, func(o api.DataplaneSubscription) bool { return o.ID == sub.ID }); i >= 0 {
		list[i] = sub
		return list
	}
	at := len(list)
	for i := range list {
		switch {
		case list[i].DisconnectTime != nil:
		case sub.DisconnectTime != nil:
			at = min(at, i) // it ended unnoticed, before the one that is open
		default:
			list[i].DisconnectTime = sub.ConnectTime
		}
	}
	list = slices.Insert(list, at, sub)
	return list[max(0, len(list)-subscriptionLimit):]
}

func online(list []api.DataplaneSubscription) bool {
	return slices.ContainsFunc(list, func(s api.DataplaneSubscription) bool { return s.DisconnectTime == nil })
}

// versionOf reads the versions that a proxy names in its metadata.
func versionOf(n *corev3.Node) *api.DataplaneVersion {
	v := n.GetMetadata().GetFields()["version"].GetStructValue()
	if v == nil {
		return nil
	}
	text := func(s *structpb.Struct, name string) string { return s.GetFields()[name].GetStringValue() }
	out := &api.DataplaneVersion{}
	if dp := v.GetFields()["kumaDp"].GetStructValue(); dp != nil {
		out.KumaDP = &api.KumaDPVersion{
			Version: text(dp, "version"), GitTag: text(dp, "gitTag"), GitCommit: text(dp, "gitCommit"),
			BuildDate: text(dp, "buildDate"), KumaCPCompatible: true,
		}
	}
	if e := v.GetFields()["envoy"].GetStructValue(); e != nil {
		out.Envoy = &api.EnvoyVersion{Version: text(e, "version"), Build: text(e, "build"), KumaDPCompatible: true}
	}
	return out
}

// mtls shows the certificate of a proxy.
func mtls(was *api.DataplaneMTLS, leaf *api.Leaf) *api.DataplaneMTLS {
	issued, expires := leaf.NotBefore.Truncate(time.Second), leaf.NotAfter.Truncate(time.Second)
	m := &api.DataplaneMTLS{
		CertificateExpirationTime: &expires, LastCertificateRegeneration: &issued,
		IssuedBackend: api.MeshIdentities.KRI(leaf.Identity, ""), CertificateRegenerations: 1,
	}
	if was != nil && was.LastCertificateRegeneration != nil {
		m.CertificateRegenerations = was.CertificateRegenerations
		if !was.LastCertificateRegeneration.Equal(issued) {
			m.CertificateRegenerations++
		}
	}
	return m
}
