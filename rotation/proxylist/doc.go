// Package proxylist reads forward proxies from lines and lists: "URL [key=value …]", a proxy a line.
package proxylist
