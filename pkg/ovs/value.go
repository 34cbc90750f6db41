package ovs

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ovn-org/libovsdb/ovsdb"
)

// Columns as OVSDB writes them (RFC 7047, section 5.1): an atom, or
// ["set", [atom…]], ["map", [[key, value]…]], ["uuid", "…"]. A column of another
// form is read as the zero value: no reply makes these functions panic.

// tagged splits ["tag", rest]; the tag of an atom is "".
func tagged(raw json.RawMessage) (tag string, rest json.RawMessage) {
	if len(raw) == 0 || raw[0] != '[' {
		return "", nil
	}
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &tag) != nil {
		return "", nil
	}
	return tag, pair[1]
}

// texts lists the strings of a value, tags included, in their order, if it has
// no other atoms.
func texts(raw json.RawMessage) []string {
	s := string(raw)
	if strings.Contains(s, `\`) {
		return escapedTexts(raw)
	}
	// Every second part is between quotes.
	parts := strings.Split(s, `"`)
	list := parts[:0]
	for i, part := range parts {
		if i%2 == 1 {
			list = append(list, part)
		} else if strings.Trim(part, "[], \n\r\t") != "" {
			return nil
		}
	}
	return list
}

// escapedTexts is texts where a string has escapes.
func escapedTexts(raw json.RawMessage) []string {
	var list []string
	dec := json.NewDecoder(bytes.NewReader(raw))
	for {
		t, err := dec.Token()
		if err != nil {
			return list
		}
		switch t := t.(type) {
		case string:
			list = append(list, t)
		case json.Delim:
		default:
			return nil
		}
	}
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

// str is a column that holds one string, or "".
func (r Row) str(column string) string {
	switch list := texts(r[column]); {
	case len(list) == 1 && r[column][0] == '"':
		return list[0]
	case len(list) == 2 && list[0] == "set":
		return list[1]
	}
	return ""
}

// uuids is the column's UUIDs.
func (r Row) uuids(column string) []string {
	list := texts(r[column])
	if len(list) > 0 && list[0] == "set" {
		list = list[1:]
	}
	var ids []string
	for pair := range slices.Chunk(list, 2) {
		if len(pair) == 2 && pair[0] == "uuid" {
			ids = append(ids, pair[1])
		}
	}
	return ids
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
	list := texts(r[column])
	if len(list) == 0 || list[0] != "map" {
		return m
	}
	for pair := range slices.Chunk(list[1:], 2) {
		if len(pair) == 2 {
			m[pair[0]] = pair[1]
		}
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

// owned matches the rows of a network with a role.
func owned(network, role string) []ovsdb.Condition {
	return where("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{keyNetwork: network, keyRole: role}))
}

func selectOp(table string, cond []ovsdb.Condition, columns ...string) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Where: cond, Columns: columns}
}

// wire is op as it is sent. An empty where, which means all rows, and a wait for no
// rows must be empty lists (RFC 7047, section 5.2), which ovsdb.Operation leaves out.
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
	}{Op: op.Op, Table: op.Table, Row: op.Row, Columns: op.Columns,
		Mutations: op.Mutations, Timeout: op.Timeout, Until: op.Until, UUIDName: op.UUIDName}
	if op.Op != ovsdb.OperationInsert {
		w.Where = append([]ovsdb.Condition{}, op.Where...)
	}
	if op.Op == ovsdb.OperationWait {
		w.Rows = append([]ovsdb.Row{}, op.Rows...)
	}
	return w
}
