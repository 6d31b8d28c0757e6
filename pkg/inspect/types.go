package inspect

import "time"

// The paths of the API. Each answers GET but PathPlan, which takes a POST.
const (
	PathStatus   = "/v1/status"   // Status
	PathUnits    = "/v1/units"    // []Unit
	PathRows     = "/v1/rows"     // []Row; see Filter
	PathEdges    = "/v1/edges"    // []Edge; see Filter
	PathExplain  = "/v1/explain"  // Explanation; q=ROW|UNIT|OBJECT
	PathDiff     = "/v1/diff"     // Diff
	PathConfig   = "/v1/config"   // Config
	PathRecord   = "/v1/record"   // the flight recorder's file, application/octet-stream
	PathPod      = "/v1/pod"      // Pod; name=NAMESPACE/NAME
	PathNetworks = "/v1/networks" // []Network
	PathDevices  = "/v1/devices"  // Devices
	PathPlan     = "/v1/plan"     // Plan; the body is Kubernetes YAML; delete=true plans its deletion
)

// DefaultSocket is where an agent serves the API, on the node and in its pod.
const DefaultSocket = "/run/portolan/inspect.sock"

// Failure is the body of every answer that is not 200.
type Failure struct {
	// Error says what was asked, what was found and what to do.
	Error string `json:"error"`
	// Candidates are what an ambiguous question may have meant.
	Candidates []string `json:"candidates,omitempty"`
}

// Status says whether a process does its work, and what is not as it should be.
type Status struct {
	Identity
	Ready     bool       `json:"ready"`
	NotReady  string     `json:"notReady,omitempty"` // why
	Databases []Database `json:"databases"`
	// Groups are those that are not written as they should be; empty: all is written.
	Groups   []Group     `json:"groups"`
	Problems []Problem   `json:"problems"`
	Engine   EngineStats `json:"engine"`
	Networks int         `json:"networks"` // beside the default one, that have rows here
}

// Identity says who answers.
type Identity struct {
	Process string `json:"process"` // the program: portolan-node
	Version string `json:"version"`
	Node    string `json:"node,omitempty"` // empty for a process that serves a zone of many
	Zone    string `json:"zone"`
	// Datapath is OVS's datapath_type on this node: system or netdev.
	Datapath string    `json:"datapath,omitempty"`
	Started  time.Time `json:"started"`
	// Mode is who calls the CNI plugin on this node (decision 35): native, the runtime;
	// multus; or what stands in the way. Empty where the process serves no node.
	Mode string `json:"mode,omitempty"`
}

// Database is where one database stands.
type Database struct {
	Name string `json:"name"` // NB, SB, OVS
	Up   bool   `json:"up"`   // connected, with the lock where one is wanted
	// Generation counts connections; each new one is read afresh before it is written.
	Generation uint64 `json:"generation"`
	Error      string `json:"error,omitempty"` // why it is not up
	// Drift counts rows of ours that somebody else deleted; each was found and repaired.
	Drift     uint64 `json:"drift,omitempty"`
	Installed int64  `json:"installed,omitempty"` // NB: hv_cfg, what every chassis has installed
}

// Group is one group of units that is not written in one database.
type Group struct {
	Name     string   `json:"name"`
	Database string   `json:"database"`
	Waiting  []string `json:"waiting,omitempty"` // what is missing
	Error    string   `json:"error,omitempty"`   // of the last attempt
	Class    string   `json:"class,omitempty"`   // of Error: io, constraint, withheld, vanished
	// Age is how long it has been so, Retry when it is tried again at the latest,
	// both in seconds; Retry 0: on the event that it waits for.
	Age   float64 `json:"age"`
	Retry float64 `json:"retry,omitempty"`
}

// Problem is a mistake in what somebody asked for.
type Problem struct {
	Object   string `json:"object"` // Kind/namespace/name
	Field    string `json:"field,omitempty"`
	Severity string `json:"severity"` // error, warning
	Message  string `json:"message"`
	// Age is how long it has been so, in seconds, as far as the process knows; 0: not known.
	Age float64 `json:"age,omitempty"`
}

// EngineStats counts what an engine holds and has done since its start.
type EngineStats struct {
	Objects      int    `json:"objects"` // of intent, derived ones included
	Units        int    `json:"units"`
	Compiles     uint64 `json:"compiles"`
	Transactions uint64 `json:"transactions"`
	Operations   uint64 `json:"operations"`
	Bugs         uint64 `json:"bugs"` // invalid rows and conflicting contributions: our fault
}

// Unit is one unit of compilation in short.
type Unit struct {
	Name      string `json:"name"`  // kind/key
	Group     string `json:"group"` // it is written with
	Rows      int    `json:"rows"`
	Edges     int    `json:"edges"`
	Committed bool   `json:"committed"` // its group is, in every database
	Installed bool   `json:"installed"` // every chassis of the zone has it in its flows
}

// Row is one row as its unit says it.
type Row struct {
	Row    string   `json:"row"` // DB:Table(id)
	UUID   string   `json:"uuid"`
	Unit   string   `json:"unit"`
	Parent string   `json:"parent,omitempty"` // DB:Table(id).column
	Uses   []string `json:"uses,omitempty"`   // names that its strings refer to
	// Columns are the values in the text form of scripts, by column.
	Columns map[string]string `json:"columns"`
	// Written says that the database is known to hold it so.
	Written bool `json:"written"`
}

// Edge is one element of a set column, or one entry of a map column, of a row
// that others write too.
type Edge struct {
	Row     string   `json:"row"`
	Column  string   `json:"column"`
	Key     string   `json:"key"`             // the element, or the entry's key
	Value   string   `json:"value,omitempty"` // the entry's
	Units   []string `json:"units"`           // all that say it
	Written bool     `json:"written"`
}

// Filter narrows Rows and Edges; as query parameters unit, table and database.
type Filter struct {
	Unit     string // kind/key, or a prefix that ends in "/"; "": all
	Table    string // with its database or without: NB:ACL, ACL; "": all
	Database string // NB, SB, OVS; "": all
}

// Explanation says where a row or unit comes from and how far it has come.
type Explanation struct {
	Asked string `json:"asked"`
	// Row is the row asked for; nil when a unit or an object was.
	Row *Row `json:"row,omitempty"`
	// Elements are what units add to the row's shared columns.
	Elements []Edge `json:"elements,omitempty"`
	// Units say it, or are spawned by the object; the first owns the row.
	Units []ExplainedUnit `json:"units"`
}

// ExplainedUnit is one unit with all that is known of it.
type ExplainedUnit struct {
	Unit
	Objects  []string  `json:"objects"` // of intent that spawn it
	Reads    []string  `json:"reads"`   // what makes it run again
	Output   []Row     `json:"output"`
	Links    []Edge    `json:"links"` // what it adds to rows of others
	Waiting  []Group   `json:"waiting,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// Diff compares what units want with what the databases were found to hold.
type Diff struct {
	Databases []DatabaseDiff `json:"databases"`
}

// DatabaseDiff is one database's differences; none: it is as wanted.
type DatabaseDiff struct {
	Name        string       `json:"name"`
	Error       string       `json:"error,omitempty"` // it could not be read
	Rows        int          `json:"rows"`            // compared
	Edges       int          `json:"edges"`           // compared
	Differences []Difference `json:"differences"`
}

// The kinds of difference.
const (
	Missing   = "missing"   // wanted, not found
	Different = "different" // found with another value
	Surplus   = "surplus"   // found under our tag, wanted by nobody
)

// Difference is one row, column or shared element that is not as wanted.
type Difference struct {
	Kind   string `json:"kind"`
	Row    string `json:"row"`
	UUID   string `json:"uuid,omitempty"`   // of Row; empty for one that has none of ours
	Unit   string `json:"unit"`             // that wants it, or under whose tag it was found
	Column string `json:"column,omitempty"` // of a Different row, and of elements; parent, uuid, owner: the row's own
	Want   string `json:"want,omitempty"`
	Found  string `json:"found,omitempty"`
	// Pending says that the engine has not yet written it, so it is no drift.
	Pending bool `json:"pending,omitempty"`
}

// Plan says what a manifest would change.
type Plan struct {
	Objects []PlannedObject `json:"objects"`
	// Assumed is what the plan made up where the manifest leaves it to the cluster: a
	// node, an address.
	Assumed []string `json:"assumed,omitempty"`
	// Notes say what else follows, such as which network a definition is of.
	Notes []string      `json:"notes,omitempty"`
	Rows  []PlannedRow  `json:"rows"`
	Edges []PlannedEdge `json:"edges"`
	// Transactions and Operations are what would be sent, nb_cfg and assert left out.
	Transactions int    `json:"transactions"`
	Operations   int    `json:"operations"`
	Costs        []Cost `json:"costs"`
	// Class is the dearest of Costs: none, cheap, moderate, expensive.
	Class    string    `json:"class"`
	Waiting  []Group   `json:"waiting,omitempty"` // what would not be written, and why
	Problems []Problem `json:"problems,omitempty"`
}

// PlannedObject is one object of the manifest.
type PlannedObject struct {
	Object string `json:"object"`
	Change string `json:"change"` // added, changed, removed, same, ignored
}

// PlannedRow is one row that would come, change or go.
type PlannedRow struct {
	Change string `json:"change"` // added, changed, removed
	Row    string `json:"row"`
	Unit   string `json:"unit"`
	// Columns are those that differ.
	Columns []PlannedColumn `json:"columns,omitempty"`
}

// PlannedColumn is one column before and after, as text.
type PlannedColumn struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// PlannedEdge is one shared element that would come or go.
type PlannedEdge struct {
	Change string `json:"change"` // added, removed
	Edge   string `json:"edge"`
}

// Cost says what one kind of change costs ovn-northd.
type Cost struct {
	What   string `json:"what"` // "1 Logical_Switch_Port added"
	Class  string `json:"class"`
	Reason string `json:"reason"`
}

// The cost classes of one change, in northd's time at ten thousand ports.
const (
	Cheap     = "cheap"     // up to about 5 ms
	Moderate  = "moderate"  // tens of milliseconds
	Expensive = "expensive" // hundreds
)

// Config is what the process was told.
type Config struct {
	Identity
	Settings []Setting `json:"settings"` // its flags, with their values
	Cluster  string    `json:"cluster"`  // the Cluster file's text
}

// Setting is one flag.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
