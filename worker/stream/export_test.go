package stream

// EndForgotten is what Pulls does after a reconnect.
func (p *Pulls) EndForgotten() { p.endOlder(p.client.Conn().Stats().Reconnects) }
