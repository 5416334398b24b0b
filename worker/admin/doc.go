// Package admin is the HTTP face of a worker: health (health.go), the metrics of GET /metrics (metricsPage in
// health.go, made by worker/metrics), the JSON API and the page that shows it all. Every route stands in the
// lists of admin.go, operator.go and page.go; access.go decides who may use it.
//
// It holds no state of its own. Whatever it shows or changes comes through the values and functions of Config, so the same
// verbs can be offered elsewhere.
package admin
