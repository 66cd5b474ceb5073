package lbaas

import (
	"slices"
	"strconv"
	"strings"
)

// Annotations of Services that are understood: those of cloud-provider-openstack, with its meaning.
const (
	annotationInternal = "service.beta.kubernetes.io/openstack-internal-load-balancer"
	annotationPrefix   = "loadbalancer.openstack.org/"
)

// understood are the annotations below annotationPrefix that mean something here; true are those that the OVN provider has nothing for.
var understood = map[string]bool{
	"floating-network-id": false, "floating-subnet-id": false, "keep-floatingip": false, "hostname": false,
	"enable-health-monitor": false, "health-monitor-delay": false, "health-monitor-timeout": false, "health-monitor-max-retries": false, "health-monitor-max-retries-down": false,
	"lb-method": true, "connection-limit": true, "timeout-client-data": true, "timeout-member-connect": true, "timeout-member-data": true, "timeout-tcp-inspect": true,
}

// annotations says which of them will have no effect.
func (d *designer) annotations() {
	var foreign, beyond []string
	for key := range d.Annotations {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		switch able, known := understood[name]; {
		case !known:
			foreign = append(foreign, key)
		case able && d.ovn():
			beyond = append(beyond, key)
		}
	}
	slices.Sort(foreign)
	slices.Sort(beyond)
	if len(foreign) > 0 {
		d.wish(AnnotationNotSupported, "without effect here: %s", strings.Join(foreign, ", "))
	}
	if len(beyond) > 0 {
		d.wish(OptionNotSupported, "the provider ovn has nothing for %s", strings.Join(beyond, ", "))
	}
}

// flag reads an annotation that is true or false.
func (d *designer) flag(key string) bool {
	text, ok := d.Annotations[key]
	if !ok {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		d.wish(AnnotationInvalid, "%s is %q: true or false is understood", key, text)
	}
	return v
}

// number reads an annotation between two bounds.
func (d *designer) number(name string, otherwise, least, most int) int {
	text, ok := d.Annotations[annotationPrefix+name]
	if !ok {
		return otherwise
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < least || v > most {
		d.wish(AnnotationInvalid, "%s is %q: a number from %d to %d is understood", annotationPrefix+name, text, least, most)
		return otherwise
	}
	return v
}
