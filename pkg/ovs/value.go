package ovs

import (
	"encoding/json"

	"github.com/ovn-org/libovsdb/ovsdb"
)

// Columns as OVSDB writes them (RFC 7047, section 5.1): an atom, or
// ["set", [atom…]], ["map", [[key, value]…]], ["uuid", "…"]. What has not the
// form of its column reads as its zero value: nothing here panics on a reply.

// tagged splits ["tag", rest].
func tagged(raw json.RawMessage) (tag string, rest json.RawMessage) {
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &tag) != nil {
		return "", nil
	}
	return tag, pair[1]
}

// set is the column's atoms; an atom alone is a set of one.
func (r Row) set(column string) []json.RawMessage {
	raw := r[column]
	if len(raw) == 0 {
		return nil
	}
	if tag, rest := tagged(raw); tag == "set" {
		var atoms []json.RawMessage
		_ = json.Unmarshal(rest, &atoms)
		return atoms
	}
	return []json.RawMessage{raw}
}

// atom is the only element of a column, or T's zero value.
func atom[T any](r Row, column string) (v T) {
	if s := r.set(column); len(s) == 1 {
		_ = json.Unmarshal(s[0], &v)
	}
	return v
}

func (r Row) str(column string) string { return atom[string](r, column) }

// uuids is the column's UUIDs.
func (r Row) uuids(column string) []string {
	var list []string
	for _, a := range r.set(column) {
		if tag, rest := tagged(a); tag == "uuid" {
			var id string
			_ = json.Unmarshal(rest, &id)
			list = append(list, id)
		}
	}
	return list
}

// uuid is the column's only UUID, or "".
func (r Row) uuid(column string) string {
	if ids := r.uuids(column); len(ids) == 1 {
		return ids[0]
	}
	return ""
}

// strings is a column that maps strings to strings.
func (r Row) strings(column string) map[string]string {
	m := map[string]string{}
	tag, rest := tagged(r[column])
	if tag != "map" {
		return m
	}
	var pairs [][2]string
	_ = json.Unmarshal(rest, &pairs)
	for _, p := range pairs {
		m[p[0]] = p[1]
	}
	return m
}

// counters is a column that maps strings to whole numbers.
func (r Row) counters(column string) map[string]uint64 {
	m := map[string]uint64{}
	tag, rest := tagged(r[column])
	if tag != "map" {
		return m
	}
	var pairs [][2]json.RawMessage
	_ = json.Unmarshal(rest, &pairs)
	for _, p := range pairs {
		var k string
		var v uint64
		if json.Unmarshal(p[0], &k) == nil && json.Unmarshal(p[1], &v) == nil {
			m[k] = v
		}
	}
	return m
}

// ovsMap is the form in which a map goes into a request.
func ovsMap(m map[string]string) ovsdb.OvsMap {
	g := make(map[any]any, len(m))
	for k, v := range m {
		g[k] = v
	}
	return ovsdb.OvsMap{GoMap: g}
}

// ovsSet is the form in which a set goes into a request.
func ovsSet(atoms ...any) ovsdb.OvsSet { return ovsdb.OvsSet{GoSet: atoms} }

func uuidOf(id string) ovsdb.UUID { return ovsdb.UUID{GoUUID: id} }

func where(column string, f ovsdb.ConditionFunction, value any) []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition(column, f, value)}
}

// owned matches the rows of a network that play one of our roles.
func owned(network, role string) []ovsdb.Condition {
	return where("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{keyNetwork: network, keyRole: role}))
}

func selectOp(table string, cond []ovsdb.Condition, columns ...string) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Where: cond, Columns: columns}
}

// wire is op as it goes out. An empty where, which means all rows, and a wait
// for no rows need their empty lists (RFC 7047, section 5.2), which
// ovsdb.Operation leaves out.
func wire(op ovsdb.Operation) any {
	w := struct {
		Op        string           `json:"op"`
		Table     string           `json:"table,omitempty"`
		Row       ovsdb.Row        `json:"row,omitempty"`
		Rows      any              `json:"rows,omitempty"`
		Columns   []string         `json:"columns,omitempty"`
		Mutations []ovsdb.Mutation `json:"mutations,omitempty"`
		Timeout   *int             `json:"timeout,omitempty"`
		Where     any              `json:"where,omitempty"`
		Until     string           `json:"until,omitempty"`
		UUIDName  string           `json:"uuid-name,omitempty"`
	}{Op: op.Op, Table: op.Table, Row: op.Row, Columns: op.Columns, Mutations: op.Mutations, Timeout: op.Timeout, Until: op.Until, UUIDName: op.UUIDName}
	if op.Op != ovsdb.OperationInsert {
		w.Where = append([]ovsdb.Condition{}, op.Where...)
	}
	if op.Op == ovsdb.OperationWait {
		w.Rows = append([]ovsdb.Row{}, op.Rows...)
	}
	return w
}
