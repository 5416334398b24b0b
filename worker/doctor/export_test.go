package doctor

// ClockError is the package's, for tests.
var ClockError = clockError
