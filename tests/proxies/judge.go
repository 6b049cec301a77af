// Prints what Go makes of proxy settings: a line of JSON for each line of standard input (an object of environment
// variables), with one answer for each URL in the arguments.
//
// An answer is the address that Go's transport dials, after "direct", or after the scheme of the proxy and before its
// user and password, if there are any; or "refused" if Go makes no connection at all.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

func answer(text string) string {
	request, err := http.NewRequest("GET", text, nil)
	if err != nil {
		return "refused"
	}
	proxy, err := http.ProxyFromEnvironment(request)
	if err != nil {
		return "refused"
	}
	dialed := "refused"
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = address
			return nil, errors.New("only the address is wanted")
		},
	}
	transport.RoundTrip(request)
	if proxy == nil {
		return "direct " + dialed
	}
	said := proxy.Scheme + " " + dialed
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		said += fmt.Sprintf(" %q %q", proxy.User.Username(), password)
	}
	return said
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "one" {
		answers := []string{}
		for _, url := range os.Args[2:] {
			answers = append(answers, answer(url))
		}
		line, _ := json.Marshal(answers)
		fmt.Println(string(line))
		return
	}
	// Go reads the environment once in a process.
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		settings := map[string]string{}
		if err := json.Unmarshal(input.Bytes(), &settings); err != nil {
			panic(err)
		}
		child := exec.Command(os.Args[0], append([]string{"one"}, os.Args[1:]...)...)
		child.Env = []string{"GODEBUG=" + os.Getenv("GODEBUG")}
		for name, value := range settings {
			child.Env = append(child.Env, name+"="+value)
		}
		out, err := child.Output()
		if err != nil {
			panic(err)
		}
		fmt.Println(strings.TrimSpace(string(out)))
	}
}
