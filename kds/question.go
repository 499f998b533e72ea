package kds

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds/kdspb"
)

// call is one of the three calls on which global asks and a zone answers: the
// zone dials, then requests come to it and responses go out. They differ in
// their messages alone.
//
//	REST ─▶ Server.Ask ─▶ request ─▶ Link ─▶ LinkOptions.Answer ─▶ response ─▶ Server.Ask ─▶ REST
type call struct {
	about  api.About
	method string
	// stream is where a ZoneInsight notes who holds the call.
	stream func(*api.KDSStreams) **api.KDSStream
	// request writes a question, asked reads one.
	request func(to address, q api.Question) proto.Message
	asked   func() asked
	// answered is an empty response; body the field of it that holds the answer.
	answered func() answered
	body     protoreflect.Name
}

// response writes an answer: the fault, or else the body.
func (c call) response(id, fault string, body []byte) proto.Message {
	m := c.answered().ProtoReflect()
	set := func(field protoreflect.Name, v any) {
		m.Set(m.Descriptor().Fields().ByName(field), protoreflect.ValueOf(v))
	}
	set("request_id", id)
	if fault != "" {
		set("error", fault)
	} else {
		set(c.body, body)
	}
	return m.Interface()
}

// bodyOf reads what a response holds; nil if it is a fault.
func (c call) bodyOf(m answered) []byte {
	r := m.ProtoReflect()
	return r.Get(r.Descriptor().Fields().ByName(c.body)).Bytes()
}

// address is whom a question is for: the Dataplane under its name in the zone.
type address struct{ id, mesh, name string }

// asked is what all requests have.
type asked interface {
	proto.Message
	GetRequestId() string
	GetResourceType() string
	GetResourceMesh() string
	GetResourceName() string
}

// answered is what all responses have.
type answered interface {
	proto.Message
	GetRequestId() string
	GetError() string
}

// questionIn is the question of a request.
func questionIn(m asked) api.Question {
	switch m := m.(type) {
	case *kdspb.XDSConfigRequest:
		return api.Question{About: api.AboutConfig, EDS: m.GetIncludeEds()}
	case *kdspb.StatsRequest:
		return api.Question{About: api.AboutStats, JSON: m.GetFormat() == kdspb.AdminOutputFormat_JSON, Used: m.GetUsedOnly()}
	case *kdspb.ClustersRequest:
		return api.Question{About: api.AboutClusters, JSON: m.GetFormat() == kdspb.AdminOutputFormat_JSON}
	}
	return api.Question{}
}

func format(q api.Question) kdspb.AdminOutputFormat {
	if q.JSON {
		return kdspb.AdminOutputFormat_JSON
	}
	return kdspb.AdminOutputFormat_TEXT
}

const dataplane = "Dataplane" // the one type of resource that has an Envoy

var calls = [...]call{{
	about: api.AboutConfig, method: kdspb.StreamXDSConfigs,
	stream: func(s *api.KDSStreams) **api.KDSStream { return &s.ConfigDump },
	request: func(to address, q api.Question) proto.Message {
		return &kdspb.XDSConfigRequest{RequestId: to.id, ResourceType: dataplane, ResourceMesh: to.mesh, ResourceName: to.name, IncludeEds: q.EDS}
	},
	asked:    func() asked { return &kdspb.XDSConfigRequest{} },
	answered: func() answered { return &kdspb.XDSConfigResponse{} }, body: "config",
}, {
	about: api.AboutStats, method: kdspb.StreamStats,
	stream: func(s *api.KDSStreams) **api.KDSStream { return &s.Stats },
	request: func(to address, q api.Question) proto.Message {
		return &kdspb.StatsRequest{RequestId: to.id, ResourceType: dataplane, ResourceMesh: to.mesh, ResourceName: to.name, Format: format(q), UsedOnly: q.Used}
	},
	asked:    func() asked { return &kdspb.StatsRequest{} },
	answered: func() answered { return &kdspb.StatsResponse{} }, body: "stats",
}, {
	about: api.AboutClusters, method: kdspb.StreamClusters,
	stream: func(s *api.KDSStreams) **api.KDSStream { return &s.Clusters },
	request: func(to address, q api.Question) proto.Message {
		return &kdspb.ClustersRequest{RequestId: to.id, ResourceType: dataplane, ResourceMesh: to.mesh, ResourceName: to.name, Format: format(q)}
	},
	asked:    func() asked { return &kdspb.ClustersRequest{} },
	answered: func() answered { return &kdspb.ClustersResponse{} }, body: "clusters",
}}
