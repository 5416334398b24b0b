// What holds for every breaker, and which tests hold it. "The law" is the plain model in law_test.go; BreakerDoesWhatTheLawSays
// compares it with the breaker over random histories in virtual time, and EveryConcurrentHistory… under real concurrency.
//
//	B1  Closed opens at a failure, if with it enough failures of this generation lie in the window, by the end of their
//	    calls and from enough targets; never at a success, a refusal or by time.
//	        TestFifthFailureInTheWindowOpens TestWindowRolls TestCallsLongerThanTheWindowCountWhenTheyEnd
//	        TestOneTargetAloneDoesNotOpenWhenTwoAreAskedFor TestBreakerDoesWhatTheLawSays
//	B2  Open becomes half-open only by a call at or after the end of the open time; what is refused before changes nothing.
//	        TestOpenRefusesExactlyUntilItsEnd TestBreakerDoesWhatTheLawSays
//	B3  Half-open opens at the first failure of its generation, closes at its last wanted success, and by nothing else.
//	        TestBreakerDoesWhatTheLawSays
//	B4  No more probes are under way than are allowed, whatever the interleaving.
//	        TestCrowdAtTheEndOfAnOpenTimeGetsTheProbesAndNoMore TestCrowdNeverExceedsTheProbes
//	B5  A probe that never reports loses its place when its lease ends, and then its result; from every state a wait makes
//	    the next call go through.
//	        TestLostProbeGivesItsPlaceBack TestBreakerDoesWhatTheLawSays
//	B6  A result whose generation is over changes nothing.
//	        TestLateAnswersOfAnEarlierGenerationChangeNothing TestCrowdsLateResultsAreVoid
//	B7  An ignored call changes no count and no state, and a probe's place is free.
//	        TestPermitSettlesOnceWhateverHappens TestBreakerDoesWhatTheLawSays
//	B8  A permit is settled at most once; a panic or a Goexit loses no place.
//	        TestPermitSettlesOnceWhateverHappens TestCrowdsTotalsAddUp
//	B9  A look changes nothing, and says what a call would meet.
//	        TestOpenRefusesExactlyUntilItsEnd TestBreakerDoesWhatTheLawSays
//	B10 Open times double to a cap, jitter only makes them longer, and each window closed takes one doubling back.
//	        TestOpenTimeDoublesToTheCapAndForgets TestOpenTimesOfARowStayBetweenTheDoublingAndItsJitter
//	        TestJitterSpreadsOpenTimes TestEachWindowClosedTakesOneDoublingBack TestEndlessTimesDoNotOverflow
//	B11 There is one event a change, numbered without a gap; together they tell the state.
//	        TestCrowdsEventsTellTheStory TestBreakerDoesWhatTheLawSays
//	B12 Trip opens at once and never shortens an open time; Reset closes and forgets.
//	        TestTripOpensAndResetCloses TestBreakerDoesWhatTheLawSays
//	B13 A step of the wall clock changes nothing.
//	        TestTimesAreMonotonic
//	B14 Nothing is counted twice or lost.
//	        TestCrowdsTotalsAddUp
//	B15 A breaker's memory is constant; it has no goroutine and no timer.
//	        TestNothingIsAllocatedHoweverLongABreakerLives TestBreakersAreSmall
//	B16 Every concurrent history has an order that the law allows.
//	        TestEveryConcurrentHistoryHasAnOrderThatTheLawAllows
package breaker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

func TestTheTableOfInvariantsNamesTestsThatExist(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests, named []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				tests = append(tests, f.Name.Name)
			}
		}
		if name == "doc_test.go" {
			named = regexp.MustCompile(`Test\w+`).FindAllString(file.Doc.Text(), -1)
		}
	}
	for _, name := range named {
		if !slices.Contains(tests, name) {
			t.Errorf("the table names %s, and there is no such test", name)
		}
	}
	if len(named) < 16 {
		t.Errorf("tests in the table: got %d, want one or more for each of 16 invariants", len(named))
	}
}
