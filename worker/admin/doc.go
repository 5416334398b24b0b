// Package admin is the HTTP server of a worker: health (health.go), the metrics of GET /metrics (metricsPage in
// health.go, made by worker/metrics), the JSON API and the page that shows it all. admin.go, operator.go and page.go
// list all routes; access.go decides who may use a route.
//
// It holds no state of its own. All that it shows or changes comes through the values and functions of Config, so
// worker/control offers the same verbs over NATS.
package admin
