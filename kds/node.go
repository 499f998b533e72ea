package kds

import (
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// What a control plane can do, as it says in the node metadata of its first
// request. The first group is the contract's, the second this project's.
const (
	featureToken     = "zone-token"
	featureHash      = "hash-suffix"
	featureHGMZ      = "hg-mz-selector"
	featureProducer  = "producer-policy-flow"
	featurePing      = "zone-ping-health"              // header only
	featureOlder     = "optional-top-level-target-ref" // of release 2.14 alone
	featureChunks    = "atoll-chunks"
	featureRevisions = "atoll-revisions"
)

// Fields of the node metadata.
const (
	metaVersion  = "version"
	metaConfig   = "config"
	metaInstance = "control-plane-id"
	metaFeatures = "features"
	metaRevision = "atoll-revision" // newest revision of the peer that is applied
	metaKinds    = "atoll-kinds"    // how many kinds will be subscribed to
)

// node is what a requester says of itself.
type node struct {
	id       string
	version  string
	config   string
	instance string
	features []string
	revision revision
	kinds    int
}

func (n *node) has(feature string) bool { return slices.Contains(n.features, feature) }

// revision is a place in the history of a control plane.
type revision struct {
	epoch   string
	counter uint64
}

func (r revision) String() string {
	if r.epoch == "" {
		return ""
	}
	return r.epoch + "/" + strconv.FormatUint(r.counter, 10)
}

// parseRevision reads system_version_info; anything else than a revision is none.
func parseRevision(s string) revision {
	i := strings.LastIndexByte(s, '/')
	if i <= 0 {
		return revision{}
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil {
		return revision{}
	}
	return revision{epoch: s[:i], counter: n}
}

func (n *node) proto() *core.Node {
	text := structpb.NewStringValue
	features := make([]*structpb.Value, len(n.features))
	for i, f := range n.features {
		features[i] = text(f)
	}
	version := &structpb.Struct{Fields: map[string]*structpb.Value{
		"kumaCp": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"version": text(n.version), "gitTag": text(""), "gitCommit": text(""), "buildDate": text(""),
		}}),
	}}
	fields := map[string]*structpb.Value{
		metaVersion:  structpb.NewStructValue(version),
		metaConfig:   text(n.config),
		metaInstance: text(n.instance),
		metaFeatures: structpb.NewListValue(&structpb.ListValue{Values: features}),
		metaKinds:    structpb.NewNumberValue(float64(n.kinds)),
	}
	if r := n.revision.String(); r != "" {
		fields[metaRevision] = text(r)
	}
	return &core.Node{Id: n.id, Metadata: &structpb.Struct{Fields: fields}}
}

func parseNode(p *core.Node) *node {
	f := p.GetMetadata().GetFields()
	n := &node{
		id:       p.GetId(),
		version:  f[metaVersion].GetStructValue().GetFields()["kumaCp"].GetStructValue().GetFields()["version"].GetStringValue(),
		config:   f[metaConfig].GetStringValue(),
		instance: f[metaInstance].GetStringValue(),
		revision: parseRevision(f[metaRevision].GetStringValue()),
	}
	if k := f[metaKinds].GetNumberValue(); k > 0 && k < 1000 {
		n.kinds = int(k)
	}
	for _, v := range f[metaFeatures].GetListValue().GetValues() {
		n.features = append(n.features, v.GetStringValue())
	}
	return n
}
