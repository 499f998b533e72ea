package plan

import (
	"reflect"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// A service outside of the mesh that says so is called without an egress:
//
//	caller ─as the service speaks, with its TLS─▶ endpoint of the service
//
// What policies say of the calls holds; permissions do not, since nobody stands
// between. It goes this way by the word of the service alone, never because there is
// no egress. Egresses serve it, too: who has not heard yet that it is direct finds it.

// isDirect reports whether a port is called without an egress.
func isDirect(r *incr.Run, p Port) bool { return isExternal(p) && direct.Get(r, p.Service()) }

var direct = incr.NewQuery("direct", func(r *incr.Run, service api.ID) bool {
	svc, ok := api.MeshExternalServices.Get(r, service)
	return ok && svc.Labels[api.LabelExit] == api.ExitDirect
}, func(a, b bool) bool { return a == b })

// anyDirect reports whether there is such a service in the mesh.
var anyDirect = incr.NewQuery("any-direct", func(r *incr.Run, mesh string) bool {
	for range api.MeshExternalServices.Labelled(r, mesh, map[string]string{api.LabelExit: api.ExitDirect}) {
		return true
	}
	return false
}, func(a, b bool) bool { return a == b })

// directKey is the cluster of a class for such a service.
type directKey struct {
	Class    policy.Class
	To       target
	SystemCA string // where the host has its authorities
}

// enter adds what it takes to call the service; nothing while its TLS material is not
// there, so that calls fail.
func (k directKey) enter(r *incr.Run, s *Set) {
	service := k.To.Port.Service()
	callable := directCallable.Get(r, service)
	if callable.Complete {
		s.Clusters[k.To.Port.Name()] = directBytes.Ref(k)
	}
	if callable.Complete && callable.Certificate {
		s.Secrets[secretName(service)] = clientSecretBytes.Ref(service)
	}
}

// directCallable is what classes must know of a service, so that its other changes
// plan none of them.
var directCallable = incr.NewQuery("direct-callable", func(r *incr.Run, service api.ID) (out struct{ Complete, Certificate bool }) {
	if svc, ok := api.MeshExternalServices.Get(r, service); ok {
		out.Complete = materials.Get(r, service).Complete
		_, out.Certificate = clientCertificate(svc)
	}
	return out
}, func(a, b struct{ Complete, Certificate bool }) bool { return a == b })

// directCluster is nil when the service is gone, or is nowhere.
var directCluster = incr.NewQuery("direct-cluster", func(r *incr.Run, k directKey) *ir.Cluster {
	svc, ok := api.MeshExternalServices.Get(r, k.To.Port.Service())
	if !ok || len(svc.Spec.Endpoints) == 0 {
		return nil
	}
	c := settingsOf(r, clusterKey{Class: k.Class, To: k.To}).cluster(r)
	c.Static, c.Outside = outsideEndpoints(svc), outsideTLS(r, svc, k.SystemCA)
	return &c
}, func(a, b *ir.Cluster) bool { return reflect.DeepEqual(a, b) })

var directBytes = clusterBytes("encode.direct-cluster", directCluster)
