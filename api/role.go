package api

import (
	"maps"
	"reflect"
)

// Roles of policies: who stands behind a policy decides whom it may concern
// and which of two wins. On Universal, and in the system namespace, all are
// system; in other namespaces the shape decides.
const (
	RoleSystem        = "system"
	RoleProducer      = "producer"
	RoleConsumer      = "consumer"
	RoleWorkloadOwner = "workload-owner"
)

// PolicyRole computes the role of a policy from its namespace and the targetRefs
// of its `to` items. ok is false when producer and consumer items are mixed,
// which makes the policy invalid.
func PolicyRole(namespace, systemNamespace string, to []TargetRef) (role string, ok bool) {
	if namespace == "" || namespace == systemNamespace {
		return RoleSystem, true
	}
	if len(to) == 0 {
		return RoleWorkloadOwner, true
	}
	producers := 0
	for _, ref := range to {
		if isProducer(ref, namespace) {
			producers++
		}
	}
	switch producers {
	case len(to):
		return RoleProducer, true
	case 0:
		return RoleConsumer, true
	}
	return "", false
}

// RoleLabels returns the labels of a row that is written at this control plane,
// with the role that a policy in a namespace has, whatever its author says.
// Outside of namespaces no role is computed: none means system.
func RoleLabels(k AnyKind, row Row, systemNamespace string, r *Report) map[string]string {
	m := row.Head()
	if k.Info().Policy == nil || m.Namespace == "" || !m.Local() {
		return m.Labels
	}
	role, ok := PolicyRole(m.Namespace, systemNamespace, Targets(row))
	if !ok {
		r.At("spec.to").Add("it's not allowed to mix producer and consumer items in the same policy")
		return m.Labels
	}
	labels := maps.Clone(m.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelPolicyRole] = role
	return labels
}

// isProducer: the item is about a service of the policy's own namespace.
func isProducer(ref TargetRef, namespace string) bool {
	if ref.Kind != RefService && ref.Kind != RefHTTPRoute || ref.Labels[LabelDisplayName] == "" {
		return false
	}
	for name, value := range ref.Labels {
		if name != LabelDisplayName && (name != LabelNamespace || value != namespace) {
			return false
		}
	}
	return true
}

// Targets lists the targetRefs of the `to` items of a policy; nil for kinds
// without.
func Targets(row Row) []TargetRef {
	to := reflect.ValueOf(row.Body()).Elem().FieldByName("To")
	if !to.IsValid() {
		return nil
	}
	var refs []TargetRef
	for i := range to.Len() {
		if ref, ok := to.Index(i).FieldByName("TargetRef").Interface().(TargetRef); ok {
			refs = append(refs, ref)
		}
	}
	return refs
}

// crossesAsProducer: a policy goes on to other zones when it says that it
// speaks for a service, and does.
func crossesAsProducer(row Row) bool {
	m := row.Head()
	if m.Label(LabelPolicyRole) != RoleProducer {
		return false
	}
	role, ok := PolicyRole(m.Label(LabelNamespace), "", Targets(row))
	return ok && role == RoleProducer
}
