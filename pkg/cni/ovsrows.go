package cni

import (
	"maps"

	"github.com/ovn-kubernetes/libovsdb/model"
)

// ovsInterface and ovsPort are what is read of a row. libovsdb copies a row whenever it is
// looked at: by way of JSON, with all forty columns, unless the row says how.
type ovsInterface struct {
	UUID        string            `ovsdb:"_uuid"`
	Name        string            `ovsdb:"name"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
	Ofport      *int              `ovsdb:"ofport"`
	Error       *string           `ovsdb:"error"`
}

type ovsPort struct {
	UUID string `ovsdb:"_uuid"`
	Name string `ovsdb:"name"`
}

// ovsRoot is the database's one row: how far vswitchd has read it.
type ovsRoot struct {
	UUID   string `ovsdb:"_uuid"`
	CurCfg int    `ovsdb:"cur_cfg"`
}

// CloneModel implements libovsdb's model.CloneableModel.
func (r *ovsRoot) CloneModel() model.Model {
	c := *r
	return &c
}

// CloneModelInto implements libovsdb's model.CloneableModel.
func (r *ovsRoot) CloneModelInto(to model.Model) { *to.(*ovsRoot) = *r }

// CloneModel implements libovsdb's model.CloneableModel.
func (i *ovsInterface) CloneModel() model.Model {
	c := &ovsInterface{}
	i.CloneModelInto(c)
	return c
}

// CloneModelInto implements libovsdb's model.CloneableModel.
func (i *ovsInterface) CloneModelInto(to model.Model) {
	c := to.(*ovsInterface)
	*c = *i
	c.ExternalIDs = maps.Clone(i.ExternalIDs)
	if i.Ofport != nil {
		n := *i.Ofport
		c.Ofport = &n
	}
	if i.Error != nil {
		e := *i.Error
		c.Error = &e
	}
}

// CloneModel implements libovsdb's model.CloneableModel.
func (p *ovsPort) CloneModel() model.Model {
	c := *p
	return &c
}

// CloneModelInto implements libovsdb's model.CloneableModel.
func (p *ovsPort) CloneModelInto(to model.Model) { *to.(*ovsPort) = *p }
