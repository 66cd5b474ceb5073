package openstack

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

// response finds the cloud's answer in err. gophercloud returns it as a value, and hides it from errors.As when
// logging in again failed.
func response(err error) (gophercloud.ErrUnexpectedResponseCode, bool) {
	var r gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &r) {
		return r, true
	}
	var reauth *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &reauth) {
		return response(reauth.ErrReauth)
	}
	return r, false
}

func status(err error) int {
	r, _ := response(err)
	return r.Actual
}

// IsNotFound tells that the object is not there (404), or that no object has the name. A login that Keystone does not find says nothing
// about the object.
func IsNotFound(err error) bool {
	var byName gophercloud.ErrResourceNotFound
	var byNamePtr *gophercloud.ErrResourceNotFound
	var reauth *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &reauth) {
		return false
	}
	return status(err) == http.StatusNotFound || errors.As(err, &byName) || errors.As(err, &byNamePtr)
}

// IsConflict tells of a 409 that is not a quota: the object is in use, exists already, or is being changed (Octavia's
// "immutable"). [NeutronType] tells these apart.
func IsConflict(err error) bool { return status(err) == http.StatusConflict && !IsQuota(err) }

// IsImmutable tells that Octavia is changing the load balancer (PENDING_*) and takes no other change until it is done. The same call will
// succeed later. Octavia gives no type, only "Load Balancer ... is immutable and cannot be updated." (409), or for a deletion "Invalid
// state PENDING_UPDATE of loadbalancer resource ..." (409), where the state is as of after the refusal and may even be ACTIVE.
func IsImmutable(err error) bool {
	reason := Reason(err)
	return status(err) == http.StatusConflict && (strings.Contains(reason, "immutable") || strings.HasPrefix(reason, "Invalid state "))
}

// RefusesTree tells that Octavia's provider cannot make a load balancer with everything in it in one call, or what is in it: 501
// for an option or action the provider does not support, 400 where the API does not know the nested attribute.
func RefusesTree(err error) bool {
	switch status(err) {
	case http.StatusNotImplemented:
		return true
	case http.StatusBadRequest:
		return strings.Contains(Reason(err), "Unknown attribute")
	}
	return false
}

// quotaSentence matches Nova's ("Quota exceeded for cores: Requested 2, ...", "Maximum number of ports exceeded") and Octavia's ("Quota
// has been met for resources: Load Balancer"). They have no type that could be asked.
var quotaSentence = regexp.MustCompile(`(?i)quota exceeded|quota has been met|maximum number of .* exceeded`)

// IsQuota tells that a quota is used up: Neutron's 409 OverQuota, Nova's and Octavia's 403.
func IsQuota(err error) bool {
	if errors.As(err, new(QuotaError)) {
		return true
	}
	switch status(err) {
	case http.StatusConflict:
		return NeutronType(err) == "OverQuota"
	case http.StatusForbidden, http.StatusRequestEntityTooLarge:
		return quotaSentence.MatchString(Reason(err))
	}
	return false
}

// QuotaError is a quota that was told in other words than an answer to a request.
type QuotaError string

func (e QuotaError) Error() string { return string(e) }

// IsForbidden tells that the user's roles do not allow it (403, and not a quota).
func IsForbidden(err error) bool { return status(err) == http.StatusForbidden && !IsQuota(err) }

// IsUnauthorized tells that Keystone refused the credentials, or that they ended and could not be renewed.
func IsUnauthorized(err error) bool {
	var reauth *gophercloud.ErrUnableToReauthenticate
	return noCredential(err) || status(err) == http.StatusUnauthorized || errors.As(err, &reauth) && status(reauth.ErrOriginal) == http.StatusUnauthorized
}

// noCredential tells that Keystone does not know an application credential, which is a 404 and not a 401.
func noCredential(err error) bool {
	return status(err) == http.StatusNotFound && strings.HasPrefix(Reason(err), "Could not find Application Credential")
}

// IsBroken tells that the cloud did not do its part: no answer came, or one of 5xx.
func IsBroken(err error) bool {
	var lost *sendError
	return status(err) >= 500 || errors.As(err, &lost) && !errors.Is(err, context.Canceled)
}

// IsUnknownCA tells that a server was not trusted since nobody here knows who signed its certificate.
func IsUnknownCA(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

// IsAmbiguous tells that a write may or may not have happened: its reply was lost, a proxy or the service failed half way (5xx),
// or an answer came to the second sending of a PUT or DELETE whose first was lost (then even a 409 can mean success). Look
// before doing it again.
func IsAmbiguous(err error) bool {
	if r, ok := response(err); ok {
		if !isWrite(r.Method) {
			return false
		}
		if r.ResponseHeader.Get(resentHeader) != "" {
			return true
		}
		return r.Actual >= 500 && r.Actual != http.StatusNotImplemented && !notApplied(r.Actual, r.ResponseHeader)
	}
	var lost *sendError
	return errors.As(err, &lost) && isWrite(lost.method) && lost.sent
}

// IsLate tells that an answer did not come in time, to a proxy (504) or to us. Whoever was asked may be at it still.
func IsLate(err error) bool {
	var n net.Error
	return status(err) == http.StatusGatewayTimeout || errors.As(err, &n) && n.Timeout()
}

func isWrite(method string) bool { return method != http.MethodGet && method != http.MethodHead }

// RequestID is the id under which the cloud logged the request ("req-..."), or "".
func RequestID(err error) string {
	r, _ := response(err)
	if r.ResponseHeader == nil {
		return ""
	}
	return requestID(r.ResponseHeader)
}

func requestID(h http.Header) string {
	if id := h.Get("X-Openstack-Request-Id"); id != "" {
		return id
	}
	return h.Get("X-Compute-Request-Id")
}

// apiError is a failed call in one line; the cause stays reachable for the predicates.
type apiError struct {
	text string
	err  error
}

func (e *apiError) Error() string { return e.text }
func (e *apiError) Unwrap() error { return e.err }

// Wrap says what was being done and why the cloud refused, in one line: "creating trunk demo/worker-0: quota exceeded for
// resources: ['port'] (409, req-...)". Nil stays nil, and every predicate of this package still works on the result.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &apiError{text: fmt.Sprintf(format, args...) + ": " + sentence(err), err: err}
}

// sentence is err's text with gophercloud's dump of the reply replaced by the cloud's reason.
func sentence(err error) string {
	var done *apiError
	if errors.As(err, &done) {
		return err.Error()
	}
	var after *gophercloud.ErrErrorAfterReauthentication
	if errors.As(err, &after) {
		err = after.ErrOriginal
	}
	var reauth *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &reauth) {
		return "logging in again: " + sentence(reauth.ErrReauth)
	}
	r, ok := response(err)
	if !ok {
		return oneLine(err.Error())
	}
	code := fmt.Sprintf("%d", r.Actual)
	if id := RequestID(err); id != "" {
		code += ", " + id
	}
	return strings.Replace(err.Error(), r.Error(), Reason(err)+" ("+code+")", 1)
}
