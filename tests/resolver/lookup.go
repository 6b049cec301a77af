// Looks a name up as containerd does, by dialing with its limit of 30 s. For each try, it prints the
// seconds and the addresses or the error.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	tries, _ := strconv.Atoi(os.Args[2])
	for i := 0; i < tries; i++ {
		began := time.Now()
		dialer := net.Dialer{Timeout: 30 * time.Second}
		connection, err := dialer.Dial("tcp", net.JoinHostPort(os.Args[1], "443"))
		seconds := time.Since(began).Seconds()
		if err != nil {
			fmt.Printf("%.3f FAILED %v\n", seconds, err)
			continue
		}
		fmt.Printf("%.3f FOUND %v\n", seconds, connection.RemoteAddr())
		connection.Close()
	}
}
