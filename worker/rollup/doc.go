// Package rollup keeps what a worker did as one aggregate an hour, for a week, and the last hour's raw events.
//
// A Book is a fold: an attempt, an ended job, an announced retry and a changed breaker each add to the sums of their hour at
// once, so no query reads events again. All that a Book counts is a sum, so the hours of many workers add up in any order.
// Changed hands out what one worker counted as parts of an hour. A Sum adds up the parts of all workers, and a Book that
// receives such sums by Put answers the same queries for the whole fleet.
package rollup
