package jobs

import (
	"cmp"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// The version of the message contract that this program knows. A minor version adds, for example a field of a job; a major one
// may take away.
const (
	ContractMajor = 1
	ContractMinor = 1
	// ContractVersion is both, as they stand in HeaderContract.
	ContractVersion = "1.1"
)

// HeaderContract is the header by which a job's message says which version of the contract it was written for.
const HeaderContract = "Job-Contract"

// IsNewerContract reports whether a version is newer than the one that this program knows. What is no version is not newer.
func IsNewerContract(version string) bool {
	major, minor, ok := contract(version)
	return ok && cmp.Or(cmp.Compare(major, ContractMajor), cmp.Compare(minor, ContractMinor)) > 0
}

// IsContract reports whether a text is a version of the contract, known or not.
func IsContract(version string) bool {
	_, _, ok := contract(version)
	return ok
}

// contract reads a version such as "1.4". ok is false for any other text.
func contract(version string) (major, minor int64, ok bool) {
	before, after, ok := strings.Cut(version, ".")
	major, majorErr := text.Int(before)
	minor, minorErr := text.Int(after)
	return major, minor, ok && majorErr == nil && minorErr == nil && len(version) <= 9 && strings.Trim(version, "0123456789.") == ""
}
