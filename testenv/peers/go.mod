module github.com/gofer-mq/gofer/testenv/peers

go 1.26.0

require (
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/gofer-mq/gofer v0.0.0
	github.com/sony/gobreaker/v2 v2.4.0
)

require (
	github.com/andybalholm/brotli v1.2.8 // indirect
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	github.com/sethvargo/go-retry v0.5.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/gofer-mq/gofer => ../..
