// Package rollup keeps hourly sums of what a worker did, for a week, and its newest events.
//
// An attempt, an ended job, an announced retry and a changed breaker are added to the sums of their hour at once, so no query
// reads events again. A Book counts nothing but sums, so the hours of many workers can be added in any order. Changed returns the
// counts of one worker as parts of an hour. A Sum adds up the parts of all workers. A Book that gets such sums by Put answers the
// same queries for the whole fleet.
package rollup
