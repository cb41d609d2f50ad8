// A consumer and a provider of dubbo-go, for the Dubbo protocol with Hessian 2.
//
//	dubbo-peers provider PORT NAME
//	dubbo-peers consumer URL
//
// The provider prints "port N" when it serves and ends with its input. The consumer reads lines of an id, a scenario and options
// (idle=), and prints a line for each call, as the peers in Java do: id, case, result, and at the end id and "done".
package main

import (
	"fmt"
	"os"

	hessian "github.com/apache/dubbo-go-hessian2"
	"github.com/dubbogo/gost/log/logger"

	"dubbo.apache.org/dubbo-go/v3/config"

	_ "dubbo.apache.org/dubbo-go/v3/cluster/cluster/failover"
	_ "dubbo.apache.org/dubbo-go/v3/cluster/loadbalance/random"
	_ "dubbo.apache.org/dubbo-go/v3/filter/accesslog"
	_ "dubbo.apache.org/dubbo-go/v3/filter/active"
	_ "dubbo.apache.org/dubbo-go/v3/filter/adaptivesvc"
	_ "dubbo.apache.org/dubbo-go/v3/filter/auth"
	_ "dubbo.apache.org/dubbo-go/v3/filter/echo"
	_ "dubbo.apache.org/dubbo-go/v3/filter/exec_limit"
	_ "dubbo.apache.org/dubbo-go/v3/filter/generic"
	_ "dubbo.apache.org/dubbo-go/v3/filter/graceful_shutdown"
	_ "dubbo.apache.org/dubbo-go/v3/filter/token"
	_ "dubbo.apache.org/dubbo-go/v3/filter/tps"
	_ "dubbo.apache.org/dubbo-go/v3/filter/tps/limiter"
	_ "dubbo.apache.org/dubbo-go/v3/filter/tps/strategy"
	_ "dubbo.apache.org/dubbo-go/v3/protocol/dubbo"
	_ "dubbo.apache.org/dubbo-go/v3/proxy/proxy_factory"
)

const catalogue = "peers.api.Catalogue"

// Item is the Java class of this name.
type Item struct {
	Name    string
	Count   int32
	Colour  *Colour
	Maker   *Maker
	Next    *Item
	Parts   []*Item
	Related map[string]*Item
}

// JavaClassName of the class.
func (Item) JavaClassName() string { return "peers.api.Item" }

// Maker is the Java class of this name.
type Maker struct {
	Name    string
	Founded int64
	First   *Item
}

// JavaClassName of the class.
func (Maker) JavaClassName() string { return "peers.api.Maker" }

// Colour is the Java enum of this name.
type Colour hessian.JavaEnum

// JavaClassName of the enum.
func (Colour) JavaClassName() string { return "peers.api.Colour" }

func (c Colour) String() string {
	if c == 0 {
		return "RED"
	}
	return "GREEN"
}

// EnumValue of a name.
func (Colour) EnumValue(name string) hessian.JavaEnum {
	if name == "RED" {
		return 0
	}
	return 1
}

// Declared is the Java exception of this name.
type Declared struct {
	SerialVersionUID     int64
	DetailMessage        string
	SuppressedExceptions []any
	StackTrace           []any
	Cause                any
	Code                 int32
}

// JavaClassName of the exception.
func (Declared) JavaClassName() string { return "peers.api.Declared" }

func (d Declared) Error() string { return d.DetailMessage }

// protocol is Dubbo with fast heartbeats, idle sessions that end soon, and bodies as large as Java allows.
func protocol(port string) *config.ProtocolConfig {
	params := map[string]any{
		"connection-number": 1,
		"heartbeat-period":  "1s",
		"heartbeat-timeout": "3s",
		"session-timeout":   "4s",
		"getty-session-param": map[string]any{
			"tcp-no-delay": true, "tcp-keep-alive": true, "keep-alive-period": "120s", "tcp-r-buf-size": 262144, "tcp-w-buf-size": 65536,
			"tcp-read-timeout": "1s", "tcp-write-timeout": "5s", "wait-timeout": "1s", "max-msg-len": 16 << 20,
			"session-name": "peers",
		},
	}
	return config.NewProtocolConfigBuilder().SetName("dubbo").SetIp("127.0.0.1").SetPort(port).SetParams(params).Build()
}

func settings() *config.RootConfigBuilder {
	return config.NewRootConfigBuilder().SetLogger(config.NewLoggerConfigBuilder().SetLevel("error").Build())
}

func main() {
	hessian.RegisterPOJO(&Item{})
	hessian.RegisterPOJO(&Maker{})
	hessian.RegisterPOJO(&Declared{})
	hessian.RegisterJavaEnum(Colour(0))
	logger.SetLoggerLevel("error")
	if len(os.Args) > 3 && os.Args[1] == "provider" {
		provide(os.Args[2], os.Args[3])
	} else if len(os.Args) == 3 && os.Args[1] == "consumer" {
		consume(os.Args[2])
	} else {
		fmt.Fprintln(os.Stderr, "dubbo-peers provider PORT NAME | consumer URL")
		os.Exit(2)
	}
}
