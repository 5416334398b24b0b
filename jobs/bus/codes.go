package bus

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Class says what happens if a refused request is repeated unchanged.
type Class uint8

// The classes of refusals. The zero value means that the code is unknown.
const (
	// Temporary: the same request may succeed later.
	Temporary Class = iota + 1
	// Full: there is no room now. A publish succeeds once something is removed; a new stream needs larger limits.
	Full
	// Missing: what the request names does not exist. A worker creates what belongs to its installation.
	Missing
	// Refused: the request itself is wrong, such as too large. It is never accepted.
	Refused
	// Misconfigured: the request is refused until the server, the account or the stream is changed.
	Misconfigured
)

// Classify is the table of the error codes that nats-server documents (its server/errors.json). Codes that the server
// documents and that are missing here fail a test.
func Classify(code jetstream.ErrorCode) Class {
	switch code {
	// Codes are grouped by their remedy. Each comment names the group.
	case 10004, 10007, 10008, 10009, 10041, 10048, 10075, 10118, 10119, 10202, // a cluster that is not ready, or changes
		10005,               // no servers to place a stream on: others may be starting
		10029, 10045, 10228, // mirrors and sources that are being set up
		10012, 10049, 10050, 10051, 10057, 10069, 10077, // any cause; the text names it
		10062, 10064, 10072, 10096, 10104, 10110, 10111,
		10063, 10158, 10163, 10164, 10180, // another write is in flight, or a replica is behind
		10124, 10226, // a stream that is being moved
		10167, 10176, 10208, 10210, 10211, // too much at once; a batch that has to be sent again
		10172, // a broken counter: no stream of gofer has counters
		10225: // the stream was created again
		return Temporary
	case 10002, 10023, 10028, 10047:
		return Full
	case 10014, 10037, 10043, 10059, 10068, 10149:
		return Missing
	case 10006, 10010, 10011, 10035, 10036, 10039, 10076, 10120, 10185, 10194, 10195, // the server or the account
		10026, 10027, 10113, 10121, 10122, 10125, 10126, 10153, // their limits
		10052, 10053, 10058, 10061, 10065, 10074, 10109, // the stream, or another one in its place
		10166, 10168, 10174, 10188, 10205, // a feature that the stream was created without
		10013, 10099, 10100, 10105, 10106, 10148: // another consumer in its place
		return Misconfigured
	}
	if isRefusal(code) {
		return Refused
	}
	return 0
}

// isRefusal reports whether only a different request avoids the code.
func isRefusal(code jetstream.ErrorCode) bool {
	switch code {
	// Codes of requests.
	case 10003, 10025, 10038, 10040, 10044, 10056, 10066, 10067, 10073, 10117, 10123, 10129, 10130, 10133, 10157, 10224,
		10054, 10060, 10070, 10071, 10097, 10165, 10169, 10170, 10171, 10193, 10227, // messages
		10175, 10177, 10179, 10199, 10200, 10201, 10206, 10207, // batches
		10189, 10190, 10191, 10192, 10203, 10212, 10223, // schedules
		10021, 10022, 10024, 10128, 10155, 10156, // streams
		// Codes of mirrors and sources.
		10030, 10031, 10032, 10033, 10034, 10046, 10055, 10140, 10141, 10142, 10143, 10144, 10145, 10146, 10147,
		10150, 10151, 10152, 10154, 10173, 10186, 10187, 10198, 10209, 10213, 10214, 10215, 10216, 10217,
		// Codes of consumers.
		10015, 10016, 10017, 10018, 10019, 10020, 10042, 10078, 10079, 10080, 10081, 10082, 10083, 10084, 10085, 10086,
		10087, 10088, 10089, 10090, 10091, 10092, 10093, 10094, 10095, 10098, 10101, 10102, 10103, 10107, 10108, 10112,
		10114, 10115, 10116, 10127, 10131, 10132, 10134, 10135, 10136, 10137, 10138, 10139, 10159, 10160, 10161, 10162,
		10178, 10181, 10182, 10183, 10184, 10196, 10197, 10204, 10218, 10219, 10220, 10221, 10222:
		return true
	}
	return false
}

// classOf returns the class of an error from the server; zero for any other error. The code for a failed store covers
// several causes, which the text distinguishes. A server newer than the table has codes of its own: the HTTP status of
// such a code decides.
func classOf(err error) Class {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return 0
	}
	class := Classify(api.ErrorCode)
	switch {
	case api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, textTooLarge),
		api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, textPerSubject):
		return Refused
	case api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, textNoMoreRoom):
		return Full
	// 408 and 429 are client errors by their number, but they are temporary.
	case class == 0 && api.Code >= 400 && api.Code < 500 && api.Code != 408 && api.Code != 429:
		return Refused
	case class == 0:
		return Temporary
	}
	return class
}

// IsPermanent reports whether the same request or message is refused however often it is repeated: the message cannot
// be encoded or is too large, the subject is invalid, this user lacks the right, or the server, the account or the
// stream is not as gofer needs it. What is missing, full or without a leader is not permanent, nor is an error that
// says nothing, such as a time-out.
func IsPermanent(err error) bool {
	if err == nil {
		return false
	}
	// Errors without a code come from the client or the network.
	if class := classOf(err); class != 0 {
		return class == Refused || class == Misconfigured
	}
	if isUnsendable(err) {
		return true
	}
	return errors.Is(err, ErrConfig) || errors.Is(err, nats.ErrPermissionViolation)
}

// CuredByWaiting reports whether a set-up that failed with err may succeed later without a change of the server, the
// account, the streams or the environment. Waiting makes no room for a new stream: its limits are too large. Only a cluster
// with too few servers, which answers with code 10023, may get more of them.
func CuredByWaiting(err error) bool {
	code, _ := apiError(err)
	// A new stream that finds no room would wait for ever, since its limits are too large. Only a cluster that
	// is short of servers may gain some.
	return !IsPermanent(err) && (classOf(err) != Full || code == codeResources)
}

// IsUnstorable reports whether an error is about the message and not about where it goes: its size, its headers or its
// subject. A smaller or simpler message may be accepted.
func IsUnstorable(err error) bool {
	return err != nil && (classOf(err) == Refused || isUnsendable(err))
}

// isUnsendable reports whether the client itself found that the message cannot be sent or stored.
func isUnsendable(err error) bool {
	for _, e := range []error{
		ErrNoSubject, ErrTooLarge, errNeverFits, nats.ErrMaxPayload, nats.ErrBadHeaderMsg, nats.ErrInvalidMsg, nats.ErrBadSubject, nats.ErrHeadersNotSupported,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, ok := errors.AsType[*json.MarshalerError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*json.UnsupportedTypeError](err); ok {
		return true
	}
	_, ok := errors.AsType[*json.UnsupportedValueError](err)
	return ok
}
