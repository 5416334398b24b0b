// Package rollup keeps what a worker did as one aggregate an hour, for a week, and the last hour's raw events.
//
// A Book is a fold: an attempt, an ended job, an announced retry and a changed breaker each add to the counters of
// their hour the moment they are told, so no query ever rescans events. All that it counts is a sum, which makes
// hours of many workers addable in any order: Take hands out what was added since the last flush as named
// increments, and a Book that is fed with such sums by Set answers the same queries for the whole fleet.
package rollup
