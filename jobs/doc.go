// Package jobs is the wire of gofer: what a publisher sends, what a subscriber receives, and the names of the
// subjects and streams in between.
//
// The package knows no server and no proxy. It turns bytes into a checked Job and a Result into bytes, and refuses
// at this door whatever could not be stored further on: a result that is too large for a header block cannot
// exist, because the job that would ask for it is invalid.
//
// job.go and fields.go have the members of a job, check.go their bounds, url.go and host.go the reading of URLs as browsers
// read them. hostclass.go distinguishes public hosts from private, loopback and link-local ones: workers refuse to fetch the
// latter. message.go and result.go have the headers of a result, names.go the subjects.
package jobs
