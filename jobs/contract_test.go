package jobs_test

import (
	"fmt"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

func TestAVersionOfTheContractIsNewerOrNot(t *testing.T) {
	own := fmt.Sprintf("%d.%d", jobs.ContractMajor, jobs.ContractMinor)
	if own != jobs.ContractVersion {
		t.Errorf("got %s and %s, want the same", own, jobs.ContractVersion)
	}
	for version, want := range map[string]bool{
		own: false, fmt.Sprintf("%d.%d", jobs.ContractMajor, jobs.ContractMinor+1): true, fmt.Sprintf("%d.0", jobs.ContractMajor+1): true,
		fmt.Sprintf("%d.999", jobs.ContractMajor-1): false, fmt.Sprintf("%d.10", jobs.ContractMajor): true, "1.0": false,
		"": false, "2": false, "2.": false, ".2": false, "2.x": false, "-2.0": false, "+2.0": false, "2.0.1": false, "99999.99999": false, " 2.0": false,
	} {
		if want && !jobs.IsContract(version) {
			t.Errorf("%q is no version", version)
		}
		if got := jobs.IsNewerContract(version); got != want {
			t.Errorf("%q: got %t, want %t", version, got, want)
		}
	}
}
