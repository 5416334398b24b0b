package stream

// EndForgotten is what Pulls does after a reconnect.
func (p *Pulls) EndForgotten() { p.endForgotten() }
