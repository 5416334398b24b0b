// Package admin is the HTTP face of a worker: health, metrics, the JSON API and the page that shows it all.
//
// It holds no state of its own. Whatever it shows or changes comes through the values and functions of Config, so the same
// verbs can be offered elsewhere.
package admin
