// Turns the one time on the page into the reader's own zone and habits. Both texts are made before
// either is set: where a browser lacks something, the site's time stays as it is.
(function () {
  var time = document.querySelector("time");
  var date = new Date(time.dateTime);
  var page = document.documentElement.lang;
  var own = (navigator.languages || []).filter(function (tag) { return tag.split("-")[0] == page; })[0] || page;
  function say(parts) { return new Intl.DateTimeFormat(own, parts).format(date); }
  var clock = say({ hour: "numeric", minute: "2-digit" });
  var day = say({ weekday: "long", day: "numeric", month: "long" });
  time.firstChild.textContent = clock;
  time.lastChild.textContent = day + " · " + time.dataset.own;
})();
