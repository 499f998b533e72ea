package rest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/atoll-mesh/atoll/api/openapi"
)

type pagesKey struct{} // how the address of another page is made

// PageParams describe the parameters of a [Page].
var PageParams = []openapi.Param{
	{Name: "size", Doc: "Items of one page at most, 1 to 1000; 100 without it. Large ones make it shorter: next says where it goes on."},
	{Name: "offset", Doc: "Where the page begins, from next of the page before."},
	{Name: "name", Doc: "A part of the names."},
}

// Page is the part of a list that a caller of an [Endpoint] wants: parameters
// size, offset and name.
type Page struct {
	query
	request *http.Request
}

// PageOf reads the page that a request asks for.
func PageOf(r *http.Request) (*Page, error) {
	p := &Page{query{size: defaultPage, name: r.URL.Query().Get("name")}, r}
	return p, p.parsePage(r.URL.Query())
}

// Wants reports whether a resource of this name is in the list.
func (p *Page) Wants(name string) bool { return strings.Contains(name, p.name) }

// Holds reports whether the item of this position in the list is on the page.
func (p *Page) Holds(at int) bool { return at >= p.offset && at-p.offset < p.size }

// Next is the address of the page that follows in a list of so many items;
// empty: this is the last one.
func (p *Page) Next(total int) string {
	address, ok := p.request.Context().Value(pagesKey{}).(func(*http.Request, int) string)
	if !ok || p.offset >= total-p.size {
		return ""
	}
	return address(p.request, p.offset+p.size)
}

// NotFound is the answer about something that is not there; the title says
// what could not be done.
func NotFound(title string) *Problem { return notFound(title) }

// BadRequest is the answer to a request that cannot be understood.
func BadRequest(format string, args ...any) *Problem {
	return badRequest("bad request: %s", fmt.Sprintf(format, args...))
}
