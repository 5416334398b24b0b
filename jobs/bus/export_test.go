package bus

// ConsumerRules and StreamRules are the settings that have a rule.
func ConsumerRules() (names []string) { return ruled(consumerRules()) }

func StreamRules() (names []string) { return ruled(streamRules()) }

func ruled[C any](rules map[string]rule[C]) (names []string) {
	for name := range rules {
		names = append(names, name)
	}
	return names
}
